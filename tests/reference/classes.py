"""Pictures of three classes and a tiny classifier for the tests of classification."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from yolomish.config import DataConfig, TrainConfig, load_model_config

NAMES = ("blue", "green", "red")
TINY = TrainConfig(
    task="classify",
    model=replace(load_model_config("resnet18"), width=0.125),
    image_size=(32, 32),
    epochs=2,
    batch=6,
    peak_lr=0.05,
    momentum=0.9,
    burn_in=2,
    mosaic=0.0,
    hue=0.0,
    eval_crop=1.0,
    workers=0,
    device="cpu",
)


def coloured_squares(root: Path, *, train: int = 4, val: int = 2) -> DataConfig:
    """A folder per class: pictures of 50 x 40 px noise with a square of its colour, so many of each class."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for label, name in enumerate(NAMES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 60, (40, 50, 3), dtype=np.uint8)
                image[8:32, 10:40, label] = 230  # BGR
                cv2.imwrite(str(folder / f"{i}.png"), image)
    return DataConfig(format="imagefolder", root=str(root))
