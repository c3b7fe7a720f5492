"""Images of classes: what lists them, how they become training samples, and batches of them."""

from yolomish.data.classification.dataset import ClassData, open_classes

__all__ = ["ClassData", "open_classes"]
