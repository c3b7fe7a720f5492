"""Cross entropy with the classes' shares of each image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from yolomish.types import Losses


def classification_loss(logits: Tensor, shares: Tensor, label_smoothing: float) -> Losses:
    """The cross entropy of ``logits`` (B, K) with ``shares`` (B, K), summed over the images, float32.

    Label smoothing (arXiv:1512.00567, 7) takes that share from each target and spreads it evenly over all classes.
    """
    with torch.autocast(logits.device.type, enabled=False):
        loss = F.cross_entropy(logits.float(), shares.to(logits.device).float(), label_smoothing=label_smoothing, reduction="sum")
    return Losses(parts={"class": loss})


def confidence_loss(logits: Tensor) -> Tensor:
    """The log-probability of each image's likeliest class, summed: its gradient's sign moves images to hide it."""
    return F.log_softmax(logits.float(), 1).amax(1).sum()
