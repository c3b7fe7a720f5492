"""A tiny configuration, pictures of white squares and run folders for the tests of comparisons."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np

from yolomish.config import DataConfig, TrainConfig, load_model_config, save_yaml

MODEL = dataclasses.replace(load_model_config("yolov4-tiny"), name="tiny", width=0.25, activation="mish")
BASE = TrainConfig(model=MODEL, image_size=(64, 64), epochs=1, batch=4, workers=0)


def squares(root: Path) -> DataConfig:
    """YOLO data of one class: 8 training and 4 validation pictures of 64 x 64 px with a white square each."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
        for i in range(count):
            image = rng.integers(0, 60, (64, 64, 3), dtype=np.uint8)
            x, y = (int(v) for v in rng.integers(4, 28, 2))
            image[y : y + 30, x : x + 30] = 255
            cv2.imwrite(str(root / "images" / split / f"{i}.png"), image)
            line = f"0 {(x + 15) / 64} {(y + 15) / 64} {30 / 64} {30 / 64}\n"
            (root / "labels" / split / f"{i}.txt").write_text(line)
    return DataConfig(format="yolo", root=str(root), train="images/train", val="images/val", names=("square",))


def tiny(root: Path, epochs: int = 1) -> TrainConfig:
    """The configuration of a run on ``squares`` on the CPU."""
    base = dataclasses.replace(BASE, data=squares(root), device="cpu", epochs=epochs)
    return dataclasses.replace(base, model=dataclasses.replace(base.model, num_classes=1))


def run_folder(folder: Path, config: TrainConfig, epochs: int) -> Path:
    """A folder as a run of ``config`` leaves it after so many epochs, its checkpoint empty."""
    folder.mkdir(parents=True)
    save_yaml(config, folder / "config.yaml")
    (folder / "last.pt").write_bytes(b"")
    head = "epoch,train/box_loss,train/objectness_loss,train/class_loss,lr,metrics/AP,metrics/AP50,metrics/AP75\n"
    (folder / "results.csv").write_text(head + "".join(f"{e + 1},1,2,nan,0.1,{e / 10},,\n" for e in range(epochs)))
    return folder
