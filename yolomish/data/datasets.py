"""A split of a data set, opened: samples, sizes and the ground truth, whatever format it came in."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from yolomish.config import DataConfig
from yolomish.data.classes import class_places
from yolomish.data.formats import read_listing
from yolomish.data.formats.record import LEFT_OUT, Listing, Split, class_counts
from yolomish.data.kept import ImageData
from yolomish.data.summary import all_boxes
from yolomish.errors import YolomishError
from yolomish.types import Sample, SizeHW


class DetectionData(ImageData):
    """A split of a data set: ``names``, ``category_ids`` (label index -> annotation id), ``image_ids``, samples.

    ``own_ids``: whether the image ids are those of the annotation file, not numbers given here.
    """

    def __init__(self, listing: Listing) -> None:
        if not listing.records:
            raise YolomishError(f"{listing.source} names no images")
        super().__init__([r.path for r in listing.records], listing.names, listing.source)
        self.category_ids = listing.category_ids
        self.image_ids, self.own_ids = tuple(r.image_id for r in listing.records), listing.own_ids
        self.listing, self._records = listing, listing.records
        self._truth: COCO | None = None

    @property
    def annotated(self) -> bool:
        """Whether there is a ground truth: false for COCO's test sets, whose annotations are kept by the server."""
        return self.listing.annotated

    @property
    def left_out(self) -> str:
        """One line that counts what was there and is not used; empty where nothing is left out."""
        found = [f.check for f in self.listing.findings]
        counted = ", ".join(f"{found.count(check)} {check}" for check in LEFT_OUT if check in found)
        return f"warning: {self.source.name}: {counted}: `yolomish check` says where" if counted else ""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of classes, file names, sizes and boxes in their order: what a run's steps follow from, but the pixels."""
        found = hashlib.sha256(json.dumps(self.names).encode())
        for record in self._records:
            found.update(f"{record.path.name} {record.size_hw} {record.image_id}".encode(errors="surrogateescape"))
            for values in (record.boxes, record.labels, record.crowd, record.ignore):
                found.update(values.tobytes())
        return found.hexdigest()

    def first(self, count: int) -> DetectionData:
        """The first ``count`` images with their annotations."""
        return DetectionData(replace(self.listing, records=self._records[:count]))

    def size_hw(self, index: int) -> tuple[int, int]:
        """Height and width of an upright image in px, as the annotation states them or the image's header."""
        size = self._records[index].size_hw
        if size is None:
            raise ValueError(f"{self._records[index].path} has no size: its finding was not raised")
        return size

    def truth(self, index: int) -> Any:
        image_id = self.image_ids[index]
        boxes = self.coco().imgToAnns[image_id]
        return image_id, [(a["category_id"], a["bbox"], a.get("iscrowd", 0), a.get("difficult", 0)) for a in boxes]

    def load(self, index: int) -> Sample:
        """The sample in image px: crowds and boxes without area left out; an empty image has (0, 4) boxes."""
        record = self._records[index]
        image = self.image(index)
        h, w = self.size_hw(index)
        if (h, w) != image.shape[:2]:
            raise YolomishError(
                f"{record.path} decodes to {image.shape[1]}x{image.shape[0]} px but {self.source} says {w}x{h}: "
                "re-save the image upright, or correct the annotation"
            )
        sides = record.boxes[:, 2:] - record.boxes[:, :2]
        keep = ~record.crowd & (sides > 0).all(1)
        boxes = record.boxes[keep].astype(np.float32)
        return Sample(image=image, boxes=boxes, labels=record.labels[keep], image_id=record.image_id)

    def with_classes(self, names: tuple[str, ...], whose: str | Path) -> DetectionData:
        """The same images with their labels counted as in ``names``, the classes of ``whose``; see ``class_places``.

        A class that the data does not know gets a category id of its own. YolomishError where a box's class has no place.
        """
        if names == self.names:
            return self
        counts = class_counts(self._records, self.names)
        places = class_places(self.names, names, counts, source=self.source, whose=whose)
        fresh = itertools.count(max(self.category_ids, default=0) + 1)
        known = {place: self.category_ids[label] for label, place in enumerate(places) if place is not None}
        ids = tuple(known[place] if place in known else next(fresh) for place in range(len(names)))
        new = np.array([-1 if place is None else place for place in places], np.int64)
        records = tuple(replace(record, labels=new[record.labels]) for record in self._records)
        return DetectionData(replace(self.listing, names=names, category_ids=ids, records=records))

    def boxes_at(self, size_hw: SizeHW, *, keep_aspect: bool) -> tuple[np.ndarray, np.ndarray]:
        """Labels (N,) and box widths and heights (N, 2) of all images in px at a network size, from annotations alone.

        Crowds and boxes without area are left out. With ``keep_aspect`` both axes scale alike, as in a letterbox.
        """
        boxes = all_boxes(self.listing, size_hw, keep_aspect=keep_aspect)
        return boxes.labels, boxes.sides

    def coco(self) -> COCO:
        """The ground truth as pycocotools wants it, crowds included, with annotation ids from 1.

        Its detections' matches are those ids, and 0 means none, so a file's own ids may not be taken. An object that is
        to be ignored has ``difficult`` 1; pycocotools overwrites ``ignore`` (see ``evaluation.coco``).
        """
        if self._truth is None:
            images: list[dict] = []
            annotations: list[dict] = []
            for index, record in enumerate(self._records):
                h, w = self.size_hw(index)
                images.append({"id": record.image_id, "file_name": record.path.name, "width": w, "height": h})
                columns = (record.boxes, record.labels, record.areas, record.crowd, record.ignore)
                for box, label, area, crowd, ignore in zip(*(column.tolist() for column in columns), strict=True):
                    annotations.append(
                        {
                            "id": len(annotations) + 1,
                            "image_id": record.image_id,
                            "category_id": self.category_ids[label],
                            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                            "area": area,
                            "iscrowd": int(crowd),
                            "difficult": int(ignore),
                        }
                    )
            categories = [{"id": i, "name": n} for i, n in zip(self.category_ids, self.names, strict=True)]
            self._truth = COCO()
            self._truth.dataset = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
            with contextlib.redirect_stdout(io.StringIO()):
                self._truth.createIndex()
        return self._truth


def open_data(config: DataConfig, split: Split) -> DetectionData:
    """Open a split: annotations and, where they do not state sizes, image headers are read.

    The first error that ``check_data`` would list is a YolomishError naming file and place: missing images, malformed
    annotations, labels out of range, boxes outside their image.
    """
    listing = read_listing(config, split)
    for finding in listing.findings:
        if finding.severity == "error":
            raise YolomishError(finding.message)
    return DetectionData(listing)
