"""What a format needs to be written: pictures are in place and records fit it; the writers state what they keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from yolomish.data.formats.record import Record, Split

Kept = Literal["image ids", "category ids", "crowds", "difficult marks", "areas", "empty classes", "class order"]


@dataclass(frozen=True, kw_only=True)
class WholeSet:
    """A data set to be written: classes with their ids, and the records of each split, whose ``path`` is the picture in the new
    folder. Where train and val are the same images there is train alone."""

    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    splits: Mapping[Split, Sequence[Record]]


@dataclass(frozen=True, kw_only=True)
class Writer:
    """How a format is written. ``pictures`` names the folder of a split's pictures; ``write`` gets the new folder.

    ``keeps`` says what of a record the format holds. ``clips``: boxes must lie in their picture. A box whose sides are not
    over ``least`` px is none (below 0: all are).
    """

    pictures: Callable[[Split], str]
    write: Callable[[Path, WholeSet], None]
    keeps: frozenset[Kept] = frozenset()
    clips: bool = False
    least: float = -1.0


def fractions(record: Record) -> np.ndarray:
    """The boxes (N, 4) xyxy of a record as fractions of its picture."""
    h, w = record.size_hw or (1, 1)
    return record.boxes / (w, h, w, h)


def short(value: float) -> str:
    """A number as text, exact to 12 digits: a billionth of a pixel."""
    return f"{value:.12g}"
