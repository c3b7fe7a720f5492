"""What must be said of weights and data before their AP is quoted."""

from __future__ import annotations

from yolomish.darknet.weights import is_darknet_file
from yolomish.data.datasets import DetectionData
from yolomish.weights.catalogue import published_as
from yolomish.weights.store import locate_weights

VAL2017_IDS = frozenset((139, 285, 632, 724, 776))  # its first five images, and all up to the last of them


def is_val2017(data: DetectionData) -> bool:
    """Whether this is COCO's val2017, by the name of its source or by the images' ids.

    Ids are evidence where the annotation file gave them and only val2017's stand among the low ones: a set numbered
    from 1 has all of them and others.
    """
    first = {image_id for image_id in data.image_ids if image_id <= max(VAL2017_IDS)}
    return "val2017" in data.source.name or (data.own_ids and first == VAL2017_IDS)


def warning(weights: str, data: DetectionData) -> str:
    """Why this AP is no measure of quality, or nothing.

    The official weights, known by SHA-1, were trained on images of val2017; other ``.weights`` may have been.
    """
    path = locate_weights(weights)
    if not is_val2017(data) or not is_darknet_file(path):
        return ""
    known = published_as(path)
    if known is None:
        return (
            f"note: if {weights} was trained on Darknet's trainvalno5k list, as the official weights were, it has seen "
            "images of val2017, and this AP is too high"
        )
    if not known.saw_val2017:
        return ""
    reached = f"published on val2017: {known.on_val2017}" if known.on_val2017 else f"published: {known.accuracy}"
    return (
        f"warning: {weights} is the official {known.file} (by SHA-1): it was trained on images of val2017 (Darknet's "
        f"trainvalno5k list), so this AP checks parity, not quality; {reached}"
    )
