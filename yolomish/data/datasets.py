"""A split of a data set, opened: samples, sizes and the ground truth, whatever format it came in."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from yolomish.config import DataConfig
from yolomish.data.formats import read_listing
from yolomish.data.formats.record import Listing, Split
from yolomish.data.kept import ImageData
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

    def boxes_at(self, size_hw: SizeHW, *, keep_aspect: bool) -> tuple[np.ndarray, np.ndarray]:
        """Labels (N,) and box widths and heights (N, 2) of all images in px at a network size, from annotations alone.

        Crowds and boxes without area are left out. With ``keep_aspect`` both axes scale alike, as in a letterbox.
        """
        labels: list[np.ndarray] = [np.empty(0, np.int64)]
        sizes: list[np.ndarray] = [np.empty((0, 2))]
        for index, record in enumerate(self._records):
            scale = np.divide(size_hw, self.size_hw(index))[::-1]
            sides = (record.boxes[:, 2:] - record.boxes[:, :2]) * (scale.min() if keep_aspect else scale)
            keep = ~record.crowd & (sides > 0).all(1)
            labels.append(record.labels[keep])
            sizes.append(sides[keep])
        return np.concatenate(labels), np.concatenate(sizes)

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
