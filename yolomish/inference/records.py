"""Detections as plain values and as COCO's JSON, whose boxes are xywh in image px."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yolomish.coco_names import COCO_NAMES
from yolomish.files import PARTIAL
from yolomish.inference.sources import Frame
from yolomish.types import Detections

COCO_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # of 1..90, which COCO's 80 classes leave out
COCO_IDS = tuple(i for i in range(1, 91) if i not in COCO_GAPS)


def as_record(frame: Frame, found: Detections, names: Sequence[str]) -> dict[str, Any]:
    """One frame: file, frame number or None, width, height, detections (class, label, score, box xyxy in image px)."""
    h, w = frame.image.shape[:2]
    detections = [
        {"class": names[label], "label": label, "score": round(score, 6), "box": [round(v, 3) for v in box]}
        for box, score, label in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    ]
    return {"file": frame.name, "frame": frame.number, "width": w, "height": h, "detections": detections}


def coco_ids(names: Sequence[str]) -> tuple[int, ...]:
    """The category id of each label: COCO's own, with its gaps, for COCO's classes; else 1, 2, ..."""
    return COCO_IDS if tuple(names) == COCO_NAMES else tuple(range(1, len(names) + 1))


class CocoFile:
    """A COCO JSON of images, categories and annotations (each with a score), written as it comes: memory stays flat.

    pycocotools' ``COCO`` opens it; its ``annotations`` alone are what ``COCO.loadRes`` takes. Image ids count from 1 and
    a video's images are its frames, named VIDEO#NUMBER.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._ids = coco_ids(names)
        self._images, self._annotations = 0, 0
        self._path, self._part = path, path.with_name(f"{path.stem}{PARTIAL}{path.suffix}")
        self._file = open(self._part, "w", encoding="utf-8")
        self._later = tempfile.TemporaryFile("w+", encoding="utf-8", dir=path.parent)
        categories = [{"id": i, "name": n} for i, n in zip(self._ids, names, strict=True)]
        self._file.write(f'{{"categories": {json.dumps(categories)},\n"annotations": [')

    def add(self, record: dict[str, Any]) -> None:
        """Append one frame's ``as_record``."""
        self._images += 1
        name = record["file"] if record["frame"] is None else f"{record['file']}#{record['frame']}"
        image = {"id": self._images, "file_name": name, "width": record["width"], "height": record["height"]}
        self._later.write(("" if self._images == 1 else ",") + "\n" + json.dumps(image))
        for found in record["detections"]:
            x0, y0, x1, y1 = found["box"]
            w, h = round(x1 - x0, 3), round(y1 - y0, 3)
            self._annotations += 1
            annotation = {
                "id": self._annotations,
                "image_id": self._images,
                "category_id": self._ids[found["label"]],
                "bbox": [x0, y0, w, h],
                "area": round(w * h, 3),
                "iscrowd": 0,
                "score": found["score"],
            }
            self._file.write(("" if self._annotations == 1 else ",") + "\n" + json.dumps(annotation))

    def close(self) -> None:
        """Complete the file."""
        self._file.write('],\n"images": [')
        self._later.seek(0)
        shutil.copyfileobj(self._later, self._file)
        self._file.write("]}\n")
        self._later.close()
        self._file.close()
        os.replace(self._part, self._path)
