"""What every format is parsed into: records of images with their boxes, and findings of what is wrong with them."""

from __future__ import annotations

import math
import os
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from yolomish.config import DataConfig
from yolomish.data.images import read_headers
from yolomish.errors import YolomishError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

CHECKS = {
    "split-unreadable": "error",
    "image-listed-twice": "error",
    "annotation-malformed": "error",
    "image-missing": "error",
    "image-unreadable": "error",
    "size-differs": "error",
    "label-unknown": "error",
    "box-outside": "error",
    "box-none": "error",
    "classes-differ": "error",
    "split-overlap-file": "error",
    "split-overlap-content": "error",
    "split-overlap-near": "warning",
    "box-degenerate": "warning",
    "box-clipped": "warning",
    "box-duplicate": "warning",
    "image-duplicate": "warning",
    "image-near-duplicate": "warning",
    "exif-rotated": "warning",
    "class-empty": "warning",
    "image-empty": "info",
    "box-tiny": "info",
}
MAX_ID = 2**53  # above, ids would change on their way through JSON readers that have floats alone

_shortened = reprlib.Repr()
_shortened.maxstring = _shortened.maxother = _shortened.maxlong = 60
shown: Callable[[Any], str] = _shortened.repr  # a value of the user's file for a message, cut where it is long


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fault: a ``check`` of ``CHECKS``, the split (or two) and a message with the file, the place and the value.

    ``image`` is the picture it is about, where it is about one, ``other`` the one it is held against, ``box`` (4,) xyxy in
    the picture's px.
    """

    check: str
    split: str
    message: str
    image: Path | None = None
    box: tuple[float, float, float, float] | None = None
    other: Path | None = None

    @property
    def severity(self) -> str:
        """error, warning or info."""
        return CHECKS[self.check]


@dataclass(frozen=True, kw_only=True)
class Record:
    """One image and its N boxes, in the frame of the upright picture.

    ``size_hw`` is what the annotation states, or else the picture's header; None where neither could be read.
    ``boxes`` (N, 4) are float64 xyxy in px, ``labels`` (N,) int64, ``areas`` (N,) float64 in px² (COCO's are those of the
    segmentations). ``crowd`` (N,) marks COCO's crowds, ``ignore`` (N,) objects that count neither as found nor as missed
    (VOC's difficult). ``file`` holds the annotation and ``where`` (N) the place of each box in it, see ``place``.
    """

    path: Path
    image_id: int
    size_hw: tuple[int, int] | None
    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    ignore: np.ndarray
    file: Path | None = None
    where: tuple[str, ...] = ()

    def place(self, index: int) -> str:
        """The file and the place in it where box ``index`` stands."""
        return f"{self.file}{self.where[index]}"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A split as parsed. ``category_ids`` has the annotation file's id of each of ``names``, or numbers from 1.

    ``own_ids``: whether image ids are the file's own, not numbers given here. ``annotated``: false for COCO's test sets,
    whose annotations the server keeps.
    """

    source: Path
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    records: tuple[Record, ...]
    findings: tuple[Finding, ...] = ()
    own_ids: bool = False
    annotated: bool = True


@dataclass(frozen=True, kw_only=True)
class DataFormat:
    """A way in which data sets lie on disk.

    ``read`` parses a split of a ``DataConfig`` once and leniently: what is wrong becomes a finding and is left out of the
    records. YolomishError where nothing can be read.
    """

    name: str
    read: Callable[[DataConfig, Split], Listing]


def named_split(config: DataConfig, split: Split) -> str:
    """What the data YAML names as ``split``; YolomishError where that is nothing."""
    name: str = getattr(config, split)
    if not name:
        raise YolomishError(f"the data YAML names no {split} split: add {split}: ...")
    return name


def number(value: Any) -> float:
    """A finite number from a number or its text; ValueError on anything else."""
    if type(value) is float and math.isfinite(value):  # nearly all of a large file
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{shown(value)} is no number")
    try:
        result = float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{shown(value)} is no number") from None
    if not math.isfinite(result):
        raise ValueError(f"{shown(value)} is not finite")
    return result


def whole(value: Any) -> int:
    """A whole number of at most 2^53 from a number or its text; ValueError on anything else."""
    if type(value) is int and -MAX_ID <= value <= MAX_ID:
        return value
    result = number(value)
    if not result.is_integer() or abs(result) > MAX_ID:
        raise ValueError(f"{shown(value)} is no whole number up to 2^53")
    return int(result)


@dataclass(frozen=True)
class Folders:
    """Which files there are: each folder is listed once, which is far quicker than asking for each file."""

    listed: dict[Path, frozenset[str]] = field(default_factory=dict)

    def names(self, folder: Path) -> frozenset[str]:
        """The names of a folder's files; none where it cannot be listed."""
        if folder not in self.listed:
            try:
                with os.scandir(folder) as entries:
                    self.listed[folder] = frozenset(entry.name for entry in entries if entry.is_file())
            except (OSError, ValueError):  # ValueError: NUL in a name
                self.listed[folder] = frozenset()
        return self.listed[folder]

    def has(self, path: Path) -> bool:
        """Whether ``path`` is a file."""
        return path.name in self.names(path.parent)


def image_sizes(
    paths: Sequence[Path], stated: Sequence[tuple[int, int] | None], split: Split
) -> tuple[list[tuple[int, int] | None], list[Finding]]:
    """(height, width) of each image, ``stated`` or else from its header, and findings of missing and unreadable images.

    Pixels are not decoded, and headers of images whose size is stated are not read.
    """
    folders, sizes = Folders(), list(stated)
    missing = [path for path in paths if not folders.has(path)]
    findings = [Finding(check="image-missing", split=split, message=f"{path} does not exist", image=path) for path in missing]
    gone = set(missing)
    wanted = [i for i, size in enumerate(sizes) if size is None and paths[i] not in gone]
    for i, header in zip(wanted, read_headers([paths[i] for i in wanted]), strict=True):
        if header.size_hw is None:
            findings.append(Finding(check="image-unreadable", split=split, message=header.fault, image=paths[i]))
        sizes[i] = header.size_hw
    return sizes, findings
