"""Detections as JSON, CSV and YOLO txt; all boxes in image px but YOLO's, which are fractions."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from yolomish.types import Detections


@dataclass(frozen=True, kw_only=True)
class ImageResult:
    """One image's file, size (height, width) and detections."""

    path: Path
    size_hw: tuple[int, int]
    detections: Detections


def rows(results: Sequence[ImageResult], names: Sequence[str]) -> list[dict]:
    """One flat dict a detection: file, class, label, score, x1, y1, x2, y2."""
    return [
        {
            "file": str(result.path),
            "class": names[label],
            "label": label,
            "score": round(score, 6),
            **{k: round(v, 3) for k, v in zip(("x1", "y1", "x2", "y2"), box, strict=True)},
        }
        for result in results
        for box, score, label in zip(
            result.detections.boxes.tolist(), result.detections.scores.tolist(), result.detections.labels.tolist(), strict=True
        )
    ]


def write_json(results: Sequence[ImageResult], names: Sequence[str], path: Path) -> None:
    """A JSON list of ``rows``."""
    path.write_text(json.dumps(rows(results, names), indent=1), encoding="utf-8")


def write_csv(results: Sequence[ImageResult], names: Sequence[str], path: Path) -> None:
    """A CSV of ``rows`` with a header."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=["file", "class", "label", "score", "x1", "y1", "x2", "y2"])
        writer.writeheader()
        writer.writerows(rows(results, names))


def write_yolo(result: ImageResult, path: Path) -> None:
    """One line a detection: label cx cy w h score, as fractions of the image."""
    h, w = result.size_hw
    lines = []
    for (x0, y0, x1, y1), score, label in zip(
        result.detections.boxes.tolist(), result.detections.scores.tolist(), result.detections.labels.tolist(), strict=True
    ):
        lines.append(
            f"{label} {(x0 + x1) / 2 / w:.6f} {(y0 + y1) / 2 / h:.6f} {(x1 - x0) / w:.6f} {(y1 - y0) / h:.6f} {score:.6f}\n"
        )
    path.write_text("".join(lines), encoding="utf-8")


def free_folder(path: Path) -> Path:
    """``path``, or path-2, path-3, ... if it exists already: nothing is overwritten. The folder is made."""
    number, candidate = 1, path
    while True:
        try:
            candidate.mkdir(parents=True)
            return candidate
        except FileExistsError:
            number += 1
            candidate = path.with_name(f"{path.name}-{number}")
