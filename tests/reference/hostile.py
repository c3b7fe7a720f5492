"""Hostile inputs by format: mutations that know the format's structure, and what reads it."""

import copy
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

from yolomish.comparison.runs import Run, State
from yolomish.config import TrainConfig, load_data_config, load_model_config, load_recipe, to_dict
from yolomish.darknet.cfg import load_cfg
from yolomish.data.images import read_image
from yolomish.errors import YolomishError
from yolomish.inference.export.metadata import from_json
from yolomish.inference.sources import expand_sources
from yolomish.networks.registry import outline
from yolomish.weights.checkpoint import config_of, read_checkpoint
from yolomish.weights.store import DEMO_FILE

LONGEST = 5000  # characters of a message
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 10**30, 2**63, 1e308, float("nan"), float("inf"), -0.0, 1.5, "", "x", "a" * 300, "a\0b", "\ud800",
    "$x^{", "<script>", "../..", "..", [], [[]], {}, {"x": 1}, [1, "a", None], "1e5", "nan", "0x10", "9" * 4500,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Format:
    """``suffix`` of its files, the ``read`` under watch, and a strategy of ``inputs`` as bytes."""

    suffix: str
    read: Callable[[Path], Any]
    inputs: st.SearchStrategy[bytes]


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


def _places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return [place, *(found for key, part in pairs for found in _places(part, (*place, key)))]


def mutated(value: Any, chance: random.Random) -> Any:
    """Plain values with one to three parts replaced by odd ones, left out, doubled or nested."""
    holder = {"all": copy.deepcopy(value)}
    for _ in range(chance.randint(1, 3)):
        *way, key = chance.choice(_places(holder)[1:])
        parent: Any = holder
        for step in way:
            parent = parent[step]
        if isinstance(parent, tuple):
            continue
        what = chance.randrange(5)
        if what == 0 and way:
            del parent[key]
        elif what == 1 and isinstance(parent, list):
            parent.append(parent[key])
        elif what == 2:
            parent[key] = [parent[key]]
        else:
            parent[key] = copy.deepcopy(chance.choice(ODD))
    return holder["all"]


def scarred(content: bytes, chance: random.Random) -> bytes:
    """Bytes of which some are changed, cut off, doubled or put in."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        what = chance.randrange(4)
        if what == 0:
            data[at : at + 1] = bytes([chance.randrange(256)])
        elif what == 1:
            data[at : at + chance.randint(1, 64)] = b""
        elif what == 2:
            data[at:at] = data[at : at + chance.randint(1, 64)]
        else:
            data[at:at] = chance.choice((b"\0", b"\xff\xfe", b"nan", b"9" * 50, b"-1", b"[" * 60, b"&a *a", b"!!int x", b"\n="))
    return bytes(data)


def _from(make: Callable[[random.Random], bytes]) -> st.SearchStrategy[bytes]:
    return st.integers(0, 2**32 - 1).map(lambda seed: make(random.Random(seed)))


def _text(value: Any, dump: Callable[[Any], str]) -> Callable[[random.Random], bytes]:
    def make(chance: random.Random) -> bytes:
        text = dump(mutated(value, chance)).encode("utf-8", "surrogatepass")
        return scarred(text, chance) if chance.random() < 0.3 else text

    return make


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
filters=21
size=3
stride=8
pad=1
activation=mish

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
        lines[at] = (
            f"{key}={chance.choice(ODD)}" if sign else chance.choice(("", "[route]", "[shortcut]", "[x]", "=", "layers=-9"))
        )
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


def _read_model(file: Path) -> None:
    outline(load_model_config(str(file)))


MODEL = to_dict(load_model_config("yolov4-n"))
FORMATS: dict[str, Format] = {
    "model-yaml": Format(suffix=".yaml", read=_read_model, inputs=_from(_text(MODEL, _yaml))),
    "data-yaml": Format(
        suffix=".yaml",
        read=lambda file: load_data_config(str(file)),
        inputs=_from(_text({"format": "yolo", "root": ".", "train": "a", "val": "b", "names": ["x", "y"]}, _yaml)),
    ),
    "recipe-yaml": Format(
        suffix=".yaml",
        read=lambda file: load_recipe(str(file), load_model_config("yolov4-n")),
        inputs=_from(_text({"base": "small", **{k: v for k, v in to_dict(TrainConfig()).items() if k not in ("data",)}}, _yaml)),
    ),
    "description": Format(
        suffix=".json",
        read=lambda file: from_json(file.read_text(errors="replace"), file),
        inputs=_from(_text(DESCRIPTION, json.dumps)),
    ),
    "cfg": Format(suffix=".cfg", read=lambda file: load_cfg(str(file)), inputs=_from(_cfg)),
    "checkpoint": Format(suffix=".pt", read=_read_checkpoint, inputs=_from(_checkpoint)),
    "picture": Format(suffix=".png", read=read_image, inputs=_from(_pictured)),
    "run-csv": Format(suffix=".csv", read=_read_run, inputs=_from(lambda chance: scarred(RESULTS.encode(), chance))),
    "list": Format(
        suffix=".txt",
        read=lambda file: expand_sources([str(file)]),
        inputs=_from(lambda chance: scarred(b"a.jpg\nb/c.png\nhttp://x/y.jpg\n# note\n", chance)),
    ),
}
