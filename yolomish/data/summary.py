"""What a split holds: how many boxes of which class, how large they are in the picture and at the network's size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from yolomish.data.formats.record import Listing
from yolomish.types import SizeHW

AREAS = {"small": 32.0**2, "medium": 96.0**2, "large": np.inf}  # px², COCO's


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """The M boxes of a split that a network can learn, crowds and those without area left out.

    ``owner`` (M,) counts the records and ``index`` (M,) the boxes in each; ``labels`` (M,), ``areas`` (M,) in px², and
    ``sides`` (M, 2), widths and heights in network px.
    """

    owner: np.ndarray
    index: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    sides: np.ndarray


def all_boxes(listing: Listing, size_hw: SizeHW, *, keep_aspect: bool) -> Boxes:
    """The boxes of all images of known size, at a network size in px; both axes scale alike where ``keep_aspect``."""
    records = listing.records
    counts = np.array([len(record.labels) for record in records], np.int64)
    owner = np.repeat(np.arange(len(records)), counts)
    index = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    if not len(owner):
        none: np.ndarray = np.empty(0, np.int64)
        return Boxes(owner=none, index=none, labels=none, areas=np.empty(0), sides=np.empty((0, 2)))
    boxes = np.concatenate([record.boxes for record in records])
    sizes = np.array([record.size_hw or (np.nan, np.nan) for record in records])
    scale = (np.array(size_hw) / sizes)[:, ::-1]
    if keep_aspect:
        scale = np.repeat(scale.min(1, keepdims=True), 2, axis=1)
    sides = (boxes[:, 2:] - boxes[:, :2]) * scale[owner]
    crowd = np.concatenate([record.crowd for record in records])
    keep = ~crowd & (sides > 0).all(1)
    labels = np.concatenate([record.labels for record in records])
    areas = np.concatenate([record.areas for record in records])
    return Boxes(owner=owner[keep], index=index[keep], labels=labels[keep], areas=areas[keep], sides=sides[keep])


@dataclass(frozen=True, kw_only=True)
class ClassSummary:
    """A class's boxes and the images with at least one."""

    name: str
    boxes: int
    images: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A split in numbers: ``by_area`` counts COCO's small, medium and large boxes; ``image_sizes`` are (width, height) with
    how many images have them, the most frequent first; ``sides`` are the 1st, 5th, 25th, 50th, 75th, 95th and 99th
    percentile of a box's side (the root of its area) in network px, none without boxes."""

    images: int
    empty: int
    boxes: int
    crowds: int
    ignored: int
    most_in_one: int
    classes: tuple[ClassSummary, ...]
    by_area: dict[str, int]
    sides: tuple[float, ...]
    image_sizes: tuple[tuple[int, int, int], ...]


PERCENTILES = (1, 5, 25, 50, 75, 95, 99)


def summarise(listing: Listing, boxes: Boxes) -> Summary:
    """The numbers of a split and its boxes."""
    records, names = listing.records, listing.names
    counts = np.bincount(boxes.labels, minlength=len(names))
    pairs = np.unique(boxes.owner * len(names) + boxes.labels) % max(len(names), 1)
    images = np.bincount(pairs, minlength=len(names))
    per_image = np.bincount(boxes.owner, minlength=len(records))
    band = np.searchsorted(list(AREAS.values()), boxes.areas, side="right")
    sides = np.percentile(np.sqrt(boxes.sides.prod(1)), PERCENTILES) if len(boxes.labels) else np.empty(0)
    known = np.array([record.size_hw[::-1] for record in records if record.size_hw], np.int64)
    sizes, of_size = np.unique(known.reshape(-1, 2), axis=0, return_counts=True)
    order = (-of_size).argsort(kind="stable")
    return Summary(
        images=len(records),
        empty=sum(not len(record.labels) for record in records),
        boxes=len(boxes.labels),
        crowds=int(sum(record.crowd.sum() for record in records)),
        ignored=int(sum(record.ignore.sum() for record in records)),
        most_in_one=int(per_image.max(initial=0)),
        classes=tuple(ClassSummary(name=n, boxes=int(b), images=int(i)) for n, b, i in zip(names, counts, images, strict=True)),
        by_area={name: int((band == i).sum()) for i, name in enumerate(AREAS)},
        sides=tuple(round(float(side), 2) for side in sides),
        image_sizes=tuple((int(sizes[i][0]), int(sizes[i][1]), int(of_size[i])) for i in order),
    )
