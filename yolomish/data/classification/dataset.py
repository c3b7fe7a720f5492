"""A split to classify, opened."""

from __future__ import annotations

from yolomish.config import DataConfig
from yolomish.data.classification.formats import ClassListing, read_classes
from yolomish.data.formats.record import Split
from yolomish.data.kept import ImageData


class ClassData(ImageData):
    """Images with a class each: ``labels`` are places in ``names``. An image's id is its number in the list."""

    def __init__(self, listing: ClassListing) -> None:
        super().__init__(listing.paths, listing.names, listing.source)
        self.labels = listing.labels

    def truth(self, index: int) -> int:
        return self.labels[index]


def open_classes(config: DataConfig, split: Split) -> ClassData:
    """Open a split; YolomishError, naming file and line, for what is missing or has no class (see ``read_classes``)."""
    return ClassData(read_classes(config, split))
