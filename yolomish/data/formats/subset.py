"""A part of a data set: a share of its images, some of its classes, or a train split that is divided in two.

Which images are taken follows from their names alone: not from their order in a file, nor from where the set lies. A smaller
fraction's images are among those of a larger one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from yolomish.config import DataConfig
from yolomish.data.formats.record import Listing, Record, Split
from yolomish.errors import YolomishError, unknown_name

Item = TypeVar("Item")


def source_split(config: DataConfig, split: Split) -> Split:
    """The split to read for ``split``: where the train split is divided, val is a part of it."""
    return "train" if split == "val" and (config.split or config.held_out) else split


def subset(listing: Listing, config: DataConfig, split: Split) -> Listing:
    """What ``config`` takes of a split that was read by ``source_split``; findings of images that are left out are, too.

    YolomishError for a class that the data does not have.
    """
    records = listing.records
    side = "train" if config.held_out and split == "val" else split  # what is held out is a part of what trains
    if config.split and side != "test":
        paths = [record.path for record in records]
        records = _divided(records, paths, config, "split", config.split, first=side == "train", source=listing.source)
    if config.fraction < 1:
        ranked = _by_name([record.path for record in records], config, "fraction")
        records = _taken(records, ranked[: max(round(config.fraction * len(ranked)), 1)])
    records = held_apart(records, [record.path for record in records], config, split, listing.source)
    gone = {record.path for record in listing.records} - {record.path for record in records}
    findings = tuple(finding for finding in listing.findings if finding.image is None or finding.image not in gone)
    listing = replace(listing, records=records, findings=findings)
    return _only(listing, config.classes) if config.classes else listing


def part_text(config: DataConfig) -> str:
    """``, fraction 0.1, classes person and car, split 0.9``: what is taken of a data set; empty where that is all."""
    fraction = f", fraction {config.fraction:g}" if config.fraction < 1 else ""
    classes = f", classes {' and '.join(config.classes)}" if config.classes else ""
    held_out = f", held out {config.held_out:g}" if config.held_out else ""
    return fraction + classes + (f", split {config.split:g}" if config.split else "") + held_out


def held_apart(items: Sequence[Item], paths: Sequence[Path], config: DataConfig, split: Split, source: Path) -> tuple[Item, ...]:
    """What ``held_out`` leaves ``split`` of the training images at ``paths``, an item each: val's are those held out.

    All items where nothing is held out, or of test. YolomishError where one image cannot be divided.
    """
    if not config.held_out or split == "test":
        return tuple(items)
    return _divided(items, paths, config, "held_out", 1 - config.held_out, first=split == "train", source=source)


def _divided(
    items: Sequence[Item], paths: Sequence[Path], config: DataConfig, use: str, share: float, *, first: bool, source: Path
) -> tuple[Item, ...]:
    """The ``first`` share of the items at ``paths``, or else the others; at least one is on each side."""
    ranked = _by_name(paths, config, use)
    if len(ranked) < 2:
        raise YolomishError(f"{source} has {len(ranked)} image, which {use} {getattr(config, use):g} cannot divide")
    count = min(max(round(share * len(ranked)), 1), len(ranked) - 1)
    return _taken(items, ranked[:count] if first else ranked[count:])


def _by_name(paths: Sequence[Path], config: DataConfig, use: str) -> list[int]:
    """Which images there are in the order of their names' hashes, another order for each ``use``."""
    root = Path(config.root)

    def key(index: int) -> bytes:
        path = paths[index]
        name = path.relative_to(root).as_posix() if config.root and path.is_relative_to(root) else path.name
        return hashlib.sha1(f"{use}/{name}".encode(errors="surrogateescape")).digest()

    return sorted(range(len(paths)), key=key)


def _taken(items: Sequence[Item], chosen: Sequence[int]) -> tuple[Item, ...]:
    """What is chosen, in the order in which it stood."""
    return tuple(items[index] for index in sorted(chosen))


def _only(listing: Listing, classes: tuple[str, ...]) -> Listing:
    """The listing with the named classes alone, in their order; images without any of them are background."""
    for name in classes:
        if name not in listing.names:
            raise unknown_name("class", name, listing.names)
    if len(set(classes)) < len(classes):
        raise YolomishError(f"classes names one twice: {', '.join(classes)}")
    old = [listing.names.index(name) for name in classes]
    new_of = np.full(len(listing.names), -1)
    new_of[old] = np.arange(len(old))
    return replace(
        listing,
        names=classes,
        category_ids=tuple(listing.category_ids[label] for label in old),
        records=tuple(_of_classes(record, new_of) for record in listing.records),
    )


def _of_classes(record: Record, new_of: np.ndarray) -> Record:
    keep = new_of[record.labels] >= 0
    return replace(
        record,
        boxes=record.boxes[keep],
        labels=new_of[record.labels[keep]],
        areas=record.areas[keep],
        crowd=record.crowd[keep],
        ignore=record.ignore[keep],
        where=tuple(place for place, kept in zip(record.where, keep, strict=True) if kept),
    )
