"""Formats of data sets, each parsed once: leniently, into records and findings. A new one is a module and a line here."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from yolomish.config import DataConfig
from yolomish.data.formats.coco import COCO_JSON
from yolomish.data.formats.darknet import DARKNET
from yolomish.data.formats.faults import common_faults, in_order
from yolomish.data.formats.openimages import OPEN_IMAGES
from yolomish.data.formats.record import SPLITS, Listing, Split
from yolomish.data.formats.shapes import SHAPES
from yolomish.data.formats.subset import source_split, subset
from yolomish.data.formats.voc import PASCAL_VOC
from yolomish.data.formats.yolo import YOLO_TXT
from yolomish.errors import YolomishError, unknown_name

# in the order in which a folder is asked whether it is one: those first that a file of their own tells
FORMATS = {kind.name: kind for kind in (DARKNET, YOLO_TXT, COCO_JSON, OPEN_IMAGES, PASCAL_VOC, SHAPES)}

PLACES = ("format", "root", *SPLITS, *(f"{split}_images" for split in SPLITS))  # what says where a set lies


def read_listing(config: DataConfig, split: Split) -> Listing:
    """A split with all that annotations and headers tell is wrong with it, in the order of ``CHECKS``.

    YolomishError where the format is unknown, the YAML does not name the split or its list cannot be read.
    """
    config = resolved(config)
    with _collected_later():
        listing = subset(FORMATS[config.format].read(config, source_split(config, split)), config, split)
    if twice := sorted({name for name in listing.names if listing.names.count(name) > 1}):
        raise YolomishError(f"{listing.source} has the class {twice[0][:60]!r} twice: give each class a name of its own")
    return replace(listing, findings=tuple(in_order([*listing.findings, *common_faults(listing, split)])))


@contextmanager
def _collected_later() -> Iterator[None]:
    """Without garbage collection, which would go through millions of new values again and again: a quarter of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def resolved(config: DataConfig) -> DataConfig:
    """``config`` with its format, and the splits that there are where it is to be told by what lies there.

    YolomishError for an unknown format, and for what is no data set.
    """
    if config.format == "auto":
        root = Path(config.root).resolve()
        try:
            found = next((found for kind in FORMATS.values() if (found := kind.recognise(root))), None)
        except OSError as error:
            raise YolomishError(f"{root} cannot be read: {error.strerror}") from None
        if found is None:
            raise YolomishError(
                f"{root} is no data set that is known: name its .yaml, .data, .json or .csv, or a folder of "
                f"{', '.join(name for name in FORMATS if name != 'shapes')} (YOLO's with its data.yaml or classes.txt)"
            )
        return replace(config, names=config.names or found.names, **{key: getattr(found, key) for key in PLACES})
    if config.format not in FORMATS:
        raise unknown_name("data format", config.format, [*FORMATS, "auto"])
    return config
