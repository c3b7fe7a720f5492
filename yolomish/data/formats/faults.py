"""What is wrong with records whatever format they came from, as far as annotations and headers tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from yolomish.data.formats.record import CHECKS, Finding, Listing, Record, Split, class_counts

TOLERANCE = 1.0  # px over the border that rounding may explain


def no_area(split: str, place: str, name: str, box: Sequence[float], image: Path | None = None) -> Finding:
    """The finding of a box (4,) xyxy without width or height; in px where it names its ``image``."""
    message, drawn = f"{place}: {name} at {_text(box)} has no area", corners(box) if image else None
    return Finding(check="box-degenerate", split=split, message=message, image=image, box=drawn)


def common_faults(listing: Listing, split: Split) -> Iterator[Finding]:
    """Boxes without area, outside, over the border or twice; classes and images without boxes; a split without any."""
    records, names = listing.records, listing.names
    yield from _box_faults(records, names, split)
    for record in records:
        rows = Counter(zip(record.labels.tolist(), map(tuple, record.boxes.tolist()), strict=True))
        if len(rows) < len(record.labels):
            for (label, box), count in rows.items():
                if count > 1:
                    message = f"{record.path}: {count} times {names[label]} at {_text(box)}"
                    yield Finding(check="box-duplicate", split=split, message=message, image=record.path, box=corners(box))
    if not listing.annotated:
        return
    counts = class_counts(records, names)
    if records and not counts.any():
        message = f"{listing.source}: not one box in {len(records)} images: are the labels where they should be?"
        yield Finding(check="box-none", split=split, message=message)
        return
    for name, count in zip(names, counts, strict=True):
        if not count:
            yield Finding(check="class-empty", split=split, message=f"no box of class {name}")
    empty = sum(not len(record.labels) for record in records)
    if empty:
        message = f"{empty} of {len(records)} images have no boxes: they teach background"
        yield Finding(check="image-empty", split=split, message=message)


def _box_faults(records: Sequence[Record], names: tuple[str, ...], split: Split) -> Iterator[Finding]:
    counts = [len(record.labels) for record in records]
    if not sum(counts):
        return
    owner = np.repeat(np.arange(len(records)), counts)
    first = np.cumsum([0, *counts])
    boxes = np.concatenate([record.boxes for record in records])
    h, w = np.array([record.size_hw or (np.inf, np.inf) for record in records])[owner].T
    x0, y0, x1, y1 = boxes.T
    degenerate = (x1 <= x0) | (y1 <= y0)
    outside = ~degenerate & ((x0 >= w) | (y0 >= h) | (x1 <= 0) | (y1 <= 0))
    over = (x0 < -TOLERANCE) | (y0 < -TOLERANCE) | (x1 > w + TOLERANCE) | (y1 > h + TOLERANCE)
    for i in np.flatnonzero(degenerate | outside | over):
        record, index = records[owner[i]], int(i - first[owner[i]])
        place, name = record.place(index), names[record.labels[index]]
        size = "{1}x{0} image".format(*record.size_hw) if record.size_hw else "image"
        if degenerate[i]:
            yield no_area(split, place, name, boxes[i], record.path)
        elif outside[i]:
            message = f"{place}: {name} at {_text(boxes[i])} lies outside the {size}"
            yield Finding(check="box-outside", split=split, message=message, image=record.path, box=corners(boxes[i]))
        else:
            message = f"{place}: {name} at {_text(boxes[i])} reaches over the {size}'s border"
            yield Finding(check="box-clipped", split=split, message=message, image=record.path, box=corners(boxes[i]))


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """The findings in the order of ``CHECKS``, the worst first."""
    order = {check: place for place, check in enumerate(CHECKS)}
    return sorted(findings, key=lambda finding: order[finding.check])


def corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    """A box (4,) xyxy as plain numbers."""
    x0, y0, x1, y1 = (float(value) for value in box)
    return x0, y0, x1, y1


def _text(box: Sequence[float]) -> str:
    return "(" + ", ".join(f"{v:g}" for v in box) + ")"
