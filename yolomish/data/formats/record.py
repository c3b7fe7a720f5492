"""What every format is parsed into: records of images with their boxes, and findings of what is wrong with them."""

from __future__ import annotations

import math
import os
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from yolomish.config import DataConfig
from yolomish.config.data_yaml import SPLITS as SPLITS
from yolomish.config.data_yaml import Split as Split
from yolomish.data.images import read_headers
from yolomish.errors import YolomishError

if TYPE_CHECKING:
    from yolomish.data.formats.writing import Writer

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
    "image-passed-over": "warning",
    "label-passed-over": "warning",
    "image-near-duplicate": "warning",
    "test-unreadable": "warning",
    "exif-rotated": "warning",
    "class-empty": "warning",
    "classes-reordered": "info",
    "image-empty": "info",
    "box-tiny": "info",
}
LEFT_OUT = ("box-degenerate", "image-passed-over", "label-passed-over")  # what these name is not trained on
LONGEST = 480  # characters of a message
MAX_PX = 1e9  # no coordinate is larger, and areas stay finite
MAX_ID = 2**53  # above, ids would change on their way through JSON readers that have floats alone

_shortened = reprlib.Repr()
_shortened.maxstring = _shortened.maxother = _shortened.maxlong = 60
shown: Callable[[Any], str] = _shortened.repr  # a value of the user's file for a message, cut where it is long


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fault: a ``check`` of ``CHECKS``, the split (or two) and a message with the file, the place and the value, one line
    of at most ``LONGEST`` characters whatever names the data has.

    ``image`` is the picture it is about, where it is about one, ``other`` the one it is held against, ``box`` (4,) xyxy in
    the picture's px.
    """

    check: str
    split: str
    message: str
    image: Path | None = None
    box: tuple[float, float, float, float] | None = None
    other: Path | None = None

    def __post_init__(self) -> None:
        text = self.message
        if len(text) > LONGEST:
            text = f"{text[: LONGEST - 160]}...{text[-157:]}"
        if not text.isprintable():
            text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
        object.__setattr__(self, "message", text)

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

    @classmethod
    def of(
        cls,
        path: Path,
        image_id: int,
        size_hw: tuple[int, int] | None,
        boxes: Sequence[Sequence[float]],
        labels: Sequence[int],
        *,
        crowd: Sequence[bool] = (),
        ignore: Sequence[bool] = (),
        file: Path | None = None,
        where: Sequence[str] = (),
    ) -> Record:
        """A record of N boxes whose areas are width times height; without ``crowd`` or ``ignore`` none is one."""
        corners = np.array(boxes, np.float64).reshape(-1, 4)
        none = np.zeros(len(corners), bool)
        return cls(
            path=path,
            image_id=image_id,
            size_hw=size_hw,
            boxes=corners,
            labels=np.array(labels, np.int64),
            areas=(corners[:, 2:] - corners[:, :2]).prod(1),
            crowd=np.array(crowd, bool) if len(crowd) else none,
            ignore=np.array(ignore, bool) if len(ignore) else none,
            file=file,
            where=tuple(where),
        )

    def place(self, index: int) -> str:
        """The file and the place in it where box ``index`` stands."""
        return f"{self.file}{self.where[index]}"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A split as parsed. ``category_ids`` has the annotation file's id of each of ``names``, or numbers from 1.

    ``own_ids``: whether image ids are the file's own, not numbers given here. ``annotated``: false for COCO's test sets,
    whose annotations the server keeps. ``outlines``: how many boxes have an outline in the file, which is not kept.
    """

    source: Path
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    records: tuple[Record, ...]
    findings: tuple[Finding, ...] = ()
    own_ids: bool = False
    annotated: bool = True
    outlines: int = 0


def class_counts(records: Sequence[Record], names: Sequence[str]) -> np.ndarray:
    """The boxes of each class, crowds included."""
    return np.bincount(np.concatenate([np.empty(0, np.int64), *(r.labels for r in records)]), minlength=len(names))


@dataclass(frozen=True, kw_only=True)
class DataFormat:
    """A way in which data sets lie on disk.

    ``read`` parses a split of a ``DataConfig`` once and leniently: what is wrong becomes a finding and is left out of the
    records. YolomishError where nothing can be read. ``recognise`` returns where the splits are if a file or folder is a
    data set of this format by its layout, else None. ``writer`` is None for what is not written.
    """

    name: str
    read: Callable[[DataConfig, Split], Listing]
    recognise: Callable[[Path], DataConfig | None]
    writer: Writer | None = None


def split_paths(config: DataConfig, split: Split) -> tuple[str, ...]:
    """What the data YAML names as ``split``; YolomishError where that is nothing."""
    paths: str | tuple[str, ...] = getattr(config, split)
    if not paths:
        raise YolomishError(f"the data in {config.root or '.'} names no {split} split: add {split}: ... to its YAML")
    return (paths,) if isinstance(paths, str) else paths


def split_path(config: DataConfig, split: Split) -> str:
    """The one path that the data YAML names as ``split``; YolomishError where that is nothing, or several."""
    paths = split_paths(config, split)
    if len(paths) > 1:
        raise YolomishError(f"{split} names {len(paths)} paths, and format {config.format} takes one: join them")
    return paths[0]


WORDS: dict[str, Split] = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}
WORDS |= {"test": "test", "testing": "test"}


def split_of(name: str) -> Split | None:
    """The split that a file's or folder's name speaks of: val for ``instances_val2017.json``; None where it is none."""
    return next((WORDS[word] for word in re.findall("[a-z]+", name.lower()) if word in WORDS), None)


def by_split(names: Iterable[str]) -> dict[Split, str]:
    """The first name of each split; a lone name, whatever it is, stands for train and val."""
    names = list(names)
    found: dict[Split, str] = {}
    for name in names:
        if split := split_of(name):
            found.setdefault(split, name)
    if len(names) == 1 and set(found) <= {"train", "val"}:
        return {"train": names[0], "val": names[0]}
    return found


def laid_out(form: str, root: Path, splits: Mapping[Split, str], *, names: tuple[str, ...] = ()) -> DataConfig:
    """A recognised data set with the path of each split that it has."""
    train, val, test = (splits.get(split, "") for split in SPLITS)
    return DataConfig(format=form, root=str(root), train=train, val=val, test=test, names=names)


def number(value: Any) -> float:
    """A finite number from a number or its text; ValueError on anything else."""
    if type(value) is float and math.isfinite(value):  # nearly all of a large file
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str) or (isinstance(value, str) and "_" in value):
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
