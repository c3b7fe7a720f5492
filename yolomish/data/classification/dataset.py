"""A split to classify, opened."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path

import numpy as np

from yolomish.config import DataConfig
from yolomish.data.classification.formats import read_classes
from yolomish.data.classification.listing import ClassListing
from yolomish.data.formats.record import Split
from yolomish.data.kept import ImageData
from yolomish.errors import YolomishError


class ClassData(ImageData):
    """Images with a class each: ``labels`` are places in ``names``. An image's id is its number in the list."""

    def __init__(self, listing: ClassListing) -> None:
        super().__init__(listing.paths, listing.names, listing.source)
        self.listing, self.labels = listing, listing.labels

    def first(self, count: int) -> ClassData:
        """``count`` of the images, spread evenly: a list may be sorted by class, and its first images be of one alone."""
        chosen = [i * len(self) // min(count, len(self)) for i in range(min(count, len(self)))]
        return ClassData(self.listing.taken(chosen))

    def read(self, index: int) -> np.ndarray:
        return self.listing.stored[index].read() if self.listing.stored else super().read(index)

    def stamp(self, index: int) -> tuple[int, int]:
        return self.listing.stored[index].stamp() if self.listing.stored else super().stamp(index)

    @cached_property
    def digest(self) -> str:
        found = hashlib.sha256(json.dumps(self.names).encode())
        for path, label in zip(self.paths, self.labels, strict=True):
            found.update(f"{path.name} {label}".encode(errors="surrogateescape"))
        return found.hexdigest()

    def with_classes(self, names: tuple[str, ...], whose: str | Path) -> ClassData:
        """The same images; YolomishError where ``names``, the classes of ``whose``, are not the data's own."""
        if names != self.names:
            differing = next((pair for pair in zip(names, self.names, strict=False) if pair[0] != pair[1]), ("", ""))
            what = f", {differing[0][:60]!r} and not {differing[1][:60]!r}" if all(differing) else ""
            raise YolomishError(f"{whose} has {len(names)} classes, the data {len(self.names)}{what}: wrong --data?")
        return self

    def truth(self, index: int) -> int:
        return self.labels[index]


def open_classes(config: DataConfig, split: Split) -> ClassData:
    """Open a split; YolomishError, naming file and line, for what is missing or has no class (see ``read_classes``)."""
    return ClassData(read_classes(config, split))
