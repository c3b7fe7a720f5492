"""From a network and images to each image's likeliest classes."""

from __future__ import annotations

import torch

from yolomish.data.classification.dataset import ClassData
from yolomish.data.classification.loader import eval_loader
from yolomish.networks import Network
from yolomish.ops.distributed import gather, rank, world_size
from yolomish.tasks.classification.protocol import ClassProtocol
from yolomish.types import SizeHW

MOST = 5  # classes kept of each image


@torch.no_grad()
def predict(
    network: Network,
    data: ClassData,
    protocol: ClassProtocol,
    size_hw: SizeHW,
    *,
    device: torch.device,
    batch: int = 32,
    workers: int = 0,
) -> list[dict]:
    """A row per image, in the images' order: ``image_id``; its ``label``; the ``classes`` that are likeliest, at most five, best
    first, with their ``scores`` (0..1); the label's ``rank`` among all classes (0: the likeliest) and ``nll``, -log of its score.

    ``network`` is on ``device`` and left in the mode it came in; ``batch`` images go through at once, ``workers`` processes
    decode. Several processes share the images, and each returns all rows.
    """
    training = network.training
    network.eval()
    most = min(MOST, len(data.names))
    where = {"rank": rank(), "world_size": world_size()}
    rows = []
    for group in eval_loader(data, protocol.prepare, size_hw, batch=batch, workers=workers, **where):
        (logits,) = network(network.input.normalise(group.images.to(device)))
        shares = logits.double().log_softmax(1)
        labels = group.targets.to(device).argmax(1, keepdim=True)
        own = shares.gather(1, labels)
        # of equal scores the lower number comes first, as in top_k of src/utils.c
        before = (shares > own) | ((shares == own) & (torch.arange(shares.shape[1], device=device) < labels))
        order = shares.argsort(dim=1, descending=True, stable=True)[:, :most]
        columns = (order, shares.gather(1, order).exp(), labels[:, 0], before.sum(1), -own[:, 0])
        for image_id, classes, scores, label, place, nll in zip(
            group.image_ids, *(column.tolist() for column in columns), strict=True
        ):
            row = {"image_id": image_id, "label": label, "classes": classes, "scores": scores, "rank": place, "nll": nll}
            rows.append(row)
    network.train(training)
    return sorted((row for part in gather(rows) for row in part), key=lambda row: row["image_id"])
