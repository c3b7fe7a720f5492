"""Hostile inputs by format: mutations that know the format's structure, and what reads it."""

import io
import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from hypothesis import strategies as st

from reference.hostile_graphs import onnx_file, run_exported, xml_file
from reference.mutations import ODD, from_seed, mutated, scarred, text_of
from yolomish.comparison.results import read_results
from yolomish.comparison.runs import Run, State
from yolomish.config import DataConfig, TrainConfig, load_data_config, load_model_config, load_recipe, to_dict
from yolomish.darknet.cfg import parse_cfg
from yolomish.darknet.network import config_of as config_of_sections
from yolomish.darknet.network import read_cfg
from yolomish.darknet.weights import read_weights
from yolomish.data.check import check_data
from yolomish.data.datasets import open_data
from yolomish.data.images import read_image
from yolomish.errors import YolomishError
from yolomish.inference.export.metadata import from_json
from yolomish.inference.sources import expand_sources
from yolomish.networks import Network, build_network
from yolomish.networks.registry import outline
from yolomish.weights.checkpoint import config_of, read_checkpoint
from yolomish.weights.store import DEMO_FILE

LONGEST = 5000  # characters of a message


@dataclass(frozen=True, kw_only=True)
class Format:
    """``suffix`` of its files, the ``read`` under watch, a strategy of ``inputs`` as bytes, the packages it ``needs``."""

    suffix: str
    read: Callable[[Path], Any]
    inputs: st.SearchStrategy[bytes]
    needs: tuple[str, ...] = ()


def attempt(format: Format, content: bytes, folder: Path) -> bool:
    """Whether the input is read; False where it is refused with a message of one short line. Anything else is raised."""
    file = folder / f"input{format.suffix}"
    file.write_bytes(content)
    try:
        format.read(file)
    except YolomishError as error:
        text = str(error)
        assert 0 < len(text) < LONGEST and "\n" not in text, text[:500]
        return False
    return True


def _yaml(value: Any) -> str:
    return str(yaml.dump(value, Dumper=yaml.SafeDumper, sort_keys=False))


@cache
def _demo() -> dict[str, Any]:
    content: dict[str, Any] = torch.load(DEMO_FILE, weights_only=True)
    return content | {"model": dict(list(content["model"].items())[:3]), "ema": None}


def _checkpoint(chance: random.Random) -> bytes:
    stream = io.BytesIO()
    torch.save(mutated(_demo(), chance), stream)
    return scarred(stream.getvalue(), chance) if chance.random() < 0.3 else stream.getvalue()


def _read_checkpoint(file: Path) -> None:
    outline(config_of(read_checkpoint(file), file).model)


HEAD = {"all_anchors": [[1, 2], [3, 4]], "mask": [0, 1], "stride": 8, "num_classes": 2, "scale_xy": 1.0, "box_form": "exp"}
DESCRIPTION = {
    "name": "x", "names": ["a", "b"], "dynamic": True, "nms": False, "heads": [HEAD],
    "input": {"size_hw": [64, 64], "stride": 8, "resize": "stretch"},
}  # fmt: skip
CFG = """[net]
width=64
height=64
channels=3

[convolutional]
batch_normalize=1
filters=8
size=3
stride=8
pad=1
activation=mish

[convolutional]
filters=21
size=1
activation=linear

[yolo]
mask=0,1,2
anchors=10,14, 23,27, 37,58
classes=2
num=3
scale_x_y=1.05
"""


def _cfg(chance: random.Random) -> bytes:
    lines = CFG.splitlines()
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(lines))
        key, sign, _value = lines[at].partition("=")
        value = chance.choice(ODD) if chance.random() < 0.5 else chance.choice((1, 2, 3, 8, 64))
        junk = chance.choice(("", "[route]", "[shortcut]", "[x]", "=", "layers=-9"))
        lines[at] = f"{key}={value}" if sign else junk
    text = "\n".join(lines).encode("utf-8", "surrogatepass")
    return scarred(text, chance) if chance.random() < 0.3 else text


@cache
def _picture(suffix: str) -> bytes:
    return cv2.imencode(suffix, np.arange(3 * 24 * 31, dtype=np.uint8).reshape(24, 31, 3))[1].tobytes()


def _pictured(chance: random.Random) -> bytes:
    raw = _picture(chance.choice((".jpg", ".png", ".bmp", ".tif", ".webp")))
    if raw[:4] == b"\x89PNG" and chance.random() < 0.3:
        raw = raw[:16] + struct.pack(">II", *(chance.choice((0, 1, 40_000, 2**31)) for _ in range(2))) + raw[24:]
    return scarred(raw, chance)


RESULTS = "epoch,train/box_loss,lr,metrics/AP,metrics/AP50\n1,0.5,0.01,0.1,0.2\n2,0.4,0.01,,\n"


def _read_run(file: Path) -> None:
    folder = file.parent
    (folder / "last.pt").touch()
    (folder / "config.yaml").write_text("epochs: 2\n")
    (folder / "results.csv").write_bytes(file.read_bytes())
    Run(arm="", seed=0, path=folder, home=folder, state=State.PLANNED).read()


COCO = {
    "images": [{"id": 1, "file_name": "a.png", "height": 24, "width": 31}, {"id": 2, "file_name": "b.png"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10.5, 8], "area": 84.0, "iscrowd": 0, "segmentation": []},
        {"id": 2, "image_id": 2, "category_id": 3, "bbox": [0, 0, 31, 24], "area": 700, "iscrowd": 1},
    ],
    "categories": [{"id": 1, "name": "x", "supercategory": "none"}, {"id": 3, "name": "y"}],
}
VOC = """<annotation><folder>p</folder><filename>a.png</filename><size><width>31</width><height>24</height><depth>3</depth></size>
<object><name>x</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>11</xmax><ymax>10</ymax></bndbox></object>
<object><name>y</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>31</xmax><ymax>24</ymax></bndbox></object></annotation>"""
LABELS = b"0 0.5 0.5 0.25 0.5\n1 0.1 0.1 0.4 0.1 0.4 0.3\n"
FOUND = [
    {"image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 8], "score": 0.9},
    {"image_id": 2, "category_id": 3, "bbox": [0, 0, 9, 9], "score": 0.1},
]


def _pictures(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a.png", "b.png"):
        if not (folder / name).exists():
            (folder / name).write_bytes(_picture(".png"))


def _open(config: DataConfig) -> None:
    """Look at all of a data set, as ``data check`` does, and open it, as training does."""
    check_data(config, workers=1)
    data = open_data(config, "train")
    for index in range(len(data)):
        data.load(index)
    data.coco()


def _read_coco(file: Path) -> None:
    _pictures(file.parent / "p")
    _open(DataConfig(format="coco", root=str(file.parent), train=file.name, train_images="p", val=file.name, val_images="p"))


def _read_voc(file: Path) -> None:
    _pictures(file.parent / "JPEGImages")
    for name, content in (
        ("Annotations/a.xml", file.read_bytes()),
        ("ImageSets/Main/train.txt", b"a\n"),
        ("ImageSets/Main/val.txt", b"a\n"),
    ):
        (file.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (file.parent / name).write_bytes(content)
    _open(DataConfig(format="voc", root=str(file.parent)))


def _read_labels(file: Path) -> None:
    _pictures(file.parent / "images")
    (file.parent / "labels").mkdir(exist_ok=True)
    (file.parent / "labels" / "a.txt").write_bytes(file.read_bytes())
    _open(DataConfig(format="yolo", root=str(file.parent), train="images", val="images", names=("x", "y")))


def _read_listed(file: Path) -> None:
    _pictures(file.parent / "images")
    (file.parent / "images" / "a.txt").write_bytes(LABELS)
    _open(DataConfig(format="yolo", root=str(file.parent), train=file.name, val=file.name, names=("x", "y")))


def _read_found(file: Path) -> None:
    _pictures(file.parent / "p")
    (file.parent / "truth.json").write_text(json.dumps(COCO))
    read_results(file, open_data(DataConfig(format="coco", root=str(file.parent), train="truth.json", train_images="p"), "train"))


@cache
def _network() -> Network:
    return build_network(config_of_sections(parse_cfg(CFG, "x.cfg").sections, "x"))


@cache
def _weights() -> bytes:
    count = sum(t.numel() for name, t in _network().state_dict().items() if "num_batches" not in name)
    return struct.pack("<iiiq", 0, 2, 5, 64) + np.linspace(-1, 1, count, dtype=np.float32).tobytes()


def _read_model(file: Path) -> None:
    outline(load_model_config(str(file)))


MODEL = to_dict(load_model_config("yolov4-n"))


def _exported(suffix: str, engine: str, make: Callable[[random.Random], bytes]) -> Format:
    return Format(suffix=suffix, read=lambda file: run_exported(file, engine), inputs=from_seed(make), needs=("onnx", engine))


FORMATS: dict[str, Format] = {
    "model-yaml": Format(suffix=".yaml", read=_read_model, inputs=from_seed(text_of(MODEL, _yaml))),
    "data-yaml": Format(
        suffix=".yaml",
        read=lambda file: load_data_config(str(file)),
        inputs=from_seed(text_of({"format": "yolo", "root": ".", "train": "a", "val": "b", "names": ["x", "y"]}, _yaml)),
    ),
    "recipe-yaml": Format(
        suffix=".yaml",
        read=lambda file: load_recipe(str(file), load_model_config("yolov4-n")),
        inputs=from_seed(
            text_of({"base": "small", **{k: v for k, v in to_dict(TrainConfig()).items() if k not in ("data",)}}, _yaml)
        ),
    ),
    "description": Format(
        suffix=".json",
        read=lambda file: from_json(file.read_text(errors="replace"), file),
        inputs=from_seed(text_of(DESCRIPTION, json.dumps)),
    ),
    "cfg": Format(suffix=".cfg", read=read_cfg, inputs=from_seed(_cfg)),
    "checkpoint": Format(suffix=".pt", read=_read_checkpoint, inputs=from_seed(_checkpoint)),
    "picture": Format(suffix=".png", read=read_image, inputs=from_seed(_pictured)),
    "run-csv": Format(suffix=".csv", read=_read_run, inputs=from_seed(lambda chance: scarred(RESULTS.encode(), chance))),
    "coco-json": Format(suffix=".json", read=_read_coco, inputs=from_seed(text_of(COCO, json.dumps))),
    "voc-xml": Format(suffix=".xml", read=_read_voc, inputs=from_seed(lambda chance: scarred(VOC.encode(), chance))),
    "yolo-labels": Format(suffix=".label", read=_read_labels, inputs=from_seed(lambda chance: scarred(LABELS, chance))),
    "yolo-list": Format(
        suffix=".txt", read=_read_listed, inputs=from_seed(lambda chance: scarred(b"images/a.png\nimages/b.png\n", chance))
    ),
    "results-json": Format(suffix=".json", read=_read_found, inputs=from_seed(text_of(FOUND, json.dumps))),
    "weights": Format(
        suffix=".weights",
        read=lambda file: read_weights(file, _network()),
        inputs=from_seed(lambda chance: scarred(_weights(), chance)),
    ),
    "onnx, onnxruntime": _exported(".onnx", "onnxruntime", onnx_file),
    "onnx, openvino": _exported(".onnx", "openvino", onnx_file),
    "openvino-ir": _exported(".xml", "openvino", xml_file),
    "list": Format(
        suffix=".txt",
        read=lambda file: expand_sources([str(file)]),
        inputs=from_seed(lambda chance: scarred(b"a.jpg\nb/c.png\nhttp://x/y.jpg\n# note\n", chance)),
    ),
}
