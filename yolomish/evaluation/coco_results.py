"""COCO results of a data set as arrays, one row a detection: in memory, and as the JSON list that COCO.loadRes reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from yolomish.files import replace_file

BLOCK = 10_000  # rows that are Python values at a time
ROW = '{{"image_id": {}, "category_id": {}, "bbox": [{!r}, {!r}, {!r}, {!r}], "score": {!r}}}'  # as json.dumps, but sooner


@dataclass(frozen=True, eq=False)
class CocoResults:
    """D detections: ``image_ids`` (D,) and ``category_ids`` (D,) of the annotation file, int64; ``boxes`` (D, 4) xywh in image
    px and ``scores`` (D,), float64. Iterating yields COCO's dicts, made as they are asked for."""

    image_ids: np.ndarray
    category_ids: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, rows: Iterable[dict[str, Any]]) -> CocoResults:
        """The arrays of COCO result dicts."""
        parts, rows = [NOTHING], iter(rows)
        while block := list(islice(rows, BLOCK)):
            ids = (np.array([row[key] for row in block], np.int64) for key in ("image_id", "category_id"))
            values = (np.array([row[key] for row in block], np.float64) for key in ("bbox", "score"))
            parts.append(cls(*ids, *values))
        return cls.join(parts)

    @classmethod
    def join(cls, parts: Sequence[CocoResults]) -> CocoResults:
        """All rows of ``parts``, in their order."""
        columns = zip(*((part.image_ids, part.category_ids, part.boxes, part.scores) for part in (NOTHING, *parts)), strict=True)
        return cls(*map(np.concatenate, columns))

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: np.ndarray | slice) -> CocoResults:
        """Some rows: a slice, their indices, or a mask."""
        return CocoResults(self.image_ids[rows], self.category_ids[rows], self.boxes[rows], self.scores[rows])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for start in range(0, len(self), BLOCK):
            part = self[start : start + BLOCK]
            columns = (part.image_ids, part.category_ids, part.boxes, part.scores)
            for image_id, category, box, score in zip(*(column.tolist() for column in columns), strict=True):
                yield {"image_id": image_id, "category_id": category, "bbox": box, "score": score}

    def by_image(self) -> dict[int, CocoResults]:
        """The rows of each image that has any, best score first, equal ones in their order."""
        ordered = self[np.lexsort((-self.scores, self.image_ids))]
        ids, starts = np.unique(ordered.image_ids, return_index=True)
        edges = np.append(starts, len(self)).tolist()
        return {i: ordered[a:b] for i, (a, b) in zip(ids.tolist(), pairwise(edges), strict=True)}

    def write(self, path: Path, *, decimals: tuple[int, int] | None = None) -> None:
        """Write the JSON list, whole or not at all; ``decimals``: those of boxes and of scores (None: every bit)."""

        def fill(temporary: Path) -> None:
            with temporary.open("w", encoding="utf-8") as file:
                file.write("[")
                for start in range(0, len(self), BLOCK):
                    part = self[start : start + BLOCK]
                    columns = [*part.boxes.T.tolist(), part.scores.tolist()]
                    if decimals:
                        columns = [[round(value, decimals[i == 4]) for value in column] for i, column in enumerate(columns)]
                    rows = map(ROW.format, part.image_ids.tolist(), part.category_ids.tolist(), *columns)
                    file.write((", " if start else "") + ", ".join(rows))
                file.write("]\n")

        replace_file(path, fill)


NOTHING = CocoResults(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 4)), np.empty(0))


def entries(text: str) -> Iterator[Any]:
    """The entries of a JSON list, one after another, so that never all are Python values at once.

    JSONDecodeError, RecursionError for what is no JSON, TypeError for JSON that is no list.
    """
    decoder, space = json.JSONDecoder(), re.compile(r"[^ \t\n\r]")

    def after(place: int) -> int:
        found = space.search(text, place)
        return found.start() if found else len(text)

    place = after(0)
    if text[place : place + 1] != "[":
        raise TypeError("a mapping" if isinstance(content := json.loads(text), dict) else f"a {type(content).__name__}")
    place = after(place + 1)
    if text[place : place + 1] != "]":
        while True:
            entry, place = decoder.raw_decode(text, place)
            yield entry
            place = after(place)
            if text[place : place + 1] != ",":
                break
            place = after(place + 1)
    if text[place : place + 1] != "]":
        raise json.JSONDecodeError("Expecting ',' delimiter", text, place)
    if (place := after(place + 1)) != len(text):
        raise json.JSONDecodeError("Extra data", text, place)
