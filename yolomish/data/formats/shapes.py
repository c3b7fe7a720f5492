"""The built-in shapes: written as COCO JSON on first use and read as such."""

from __future__ import annotations

from yolomish.config import DataConfig
from yolomish.data.formats.coco import read_coco_file
from yolomish.data.formats.record import DataFormat, Listing, Split
from yolomish.data.shapes import shapes_root
from yolomish.errors import YolomishError


def read_shapes(config: DataConfig, split: Split) -> Listing:
    """A split of the generated set; its YAML says no more than ``format``. YolomishError for test, which there is not."""
    if split == "test":
        raise YolomishError("the built-in shapes have the splits train and val, no test")
    root = shapes_root()
    return read_coco_file(root / f"{split}.json", [root / split], split)


SHAPES = DataFormat(name="shapes", read=read_shapes, recognise=lambda _: None)
