"""Formats of data sets, each parsed once: leniently, into records and findings. A new one is a module and a line here."""

from __future__ import annotations

from dataclasses import replace

from yolomish.config import DataConfig
from yolomish.data.formats.coco import COCO_JSON
from yolomish.data.formats.faults import common_faults, in_order
from yolomish.data.formats.record import Listing, Split
from yolomish.data.formats.shapes import SHAPES
from yolomish.data.formats.subset import source_split, subset
from yolomish.data.formats.voc import PASCAL_VOC
from yolomish.data.formats.yolo import YOLO_TXT
from yolomish.errors import unknown_name

FORMATS = {kind.name: kind for kind in (COCO_JSON, PASCAL_VOC, YOLO_TXT, SHAPES)}


def read_listing(config: DataConfig, split: Split) -> Listing:
    """A split with all that annotations and headers tell is wrong with it, in the order of ``CHECKS``.

    YolomishError where the format is unknown, the YAML does not name the split or its list cannot be read.
    """
    if config.format not in FORMATS:
        raise unknown_name("data format", config.format, FORMATS)
    listing = subset(FORMATS[config.format].read(config, source_split(config, split)), config, split)
    return replace(listing, findings=tuple(in_order([*listing.findings, *common_faults(listing, split)])))
