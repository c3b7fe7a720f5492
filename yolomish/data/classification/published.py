"""MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100 from a user's own copy, read by torchvision's classes; nothing is fetched."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from yolomish.config import DataConfig
from yolomish.data.classification.listing import ClassListing
from yolomish.data.formats.record import Split
from yolomish.data.images import as_rgb
from yolomish.errors import YolomishError, first_line
from yolomish.files import is_there, shown_path

SETS = {  # format -> torchvision's class and the folder that it reads in root
    "mnist": ("MNIST", "MNIST/raw"),
    "fashion-mnist": ("FashionMNIST", "FashionMNIST/raw"),
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "cifar100": ("CIFAR100", "cifar-100-python"),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class ArrayPicture:
    """A picture in memory: (H, W) or (H, W, 3) uint8."""

    pixels: np.ndarray

    def read(self) -> np.ndarray:
        return as_rgb(self.pixels)

    def stamp(self) -> tuple[int, int]:
        return self.pixels.nbytes, zlib.crc32(self.pixels.tobytes())


def published_format(root: Path) -> str:
    """The format of a folder in which one of the sets lies as torchvision leaves it; empty where none does."""
    return next((name for name, (_, folder) in SETS.items() if is_there(root / folder)), "")


def of_published(config: DataConfig, split: Split) -> ClassListing:
    """train, or as val the set's test images; YolomishError where the files are missing or not the published ones."""
    from torchvision import datasets  # late: torchvision takes a second to import

    kind, folder = SETS[config.format]
    if split == "test":
        raise YolomishError(f"{config.format} has the splits train and val, its test images: name val")
    try:
        found: Any = getattr(datasets, kind)(config.root, train=split == "train", download=False)
        pictures, labels, names = np.asarray(found.data), tuple(map(int, found.targets)), config.names or tuple(found.classes)
        if len(labels) != len(pictures):
            raise ValueError(f"{len(pictures)} pictures, {len(labels)} labels")
        if max(labels, default=0) >= len(names):
            raise ValueError(f"a label is {max(labels)} of {len(names)} classes")
    except Exception as error:  # of a damaged file torchvision raises whatever its reader met, assertions and unpickling's too
        raise YolomishError(
            f"{shown_path(Path(config.root) / folder)} does not hold {config.format} ({first_line(error, 60)}): have torchvision "
            f"fetch it once, torchvision.datasets.{kind}({config.root!r}, download=True)"
        ) from None
    return ClassListing(
        source=Path(config.root),
        names=names,
        paths=tuple(Path(config.root) / folder / split / f"{i:05d}" for i in range(len(pictures))),
        labels=labels,
        stored=tuple(ArrayPicture(pixels=pixels) for pixels in pictures),
    )
