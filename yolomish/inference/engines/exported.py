"""Engines out of exported files, which say themselves what classes, size and heads they have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolomish.errors import YolomishError, first_line, shown
from yolomish.files import digest, foreign_kind, shown_path
from yolomish.inference.engines import ENGINES, Engine
from yolomish.inference.engines.check import check_ir, check_onnx
from yolomish.inference.engines.onnxruntime_engine import OnnxRuntimeEngine
from yolomish.inference.engines.openvino_engine import OpenVinoEngine
from yolomish.inference.export.metadata import KEY, Description, from_json
from yolomish.inference.export.packages import installed
from yolomish.trust import require_trust
from yolomish.types import HeadSpec, InputSpec

RUNNERS = {
    ".onnx": ("openvino", "onnxruntime"),
    ".xml": ("openvino",),
    ".torchscript": ("torch",),
    ".pt2": ("torch",),
}  # the faster one first


class ProgramEngine:
    """A TorchScript or torch.export program on ``device``."""

    input: InputSpec
    heads: tuple[HeadSpec, ...]

    def __init__(self, program: Any, device: torch.device, how: str) -> None:
        self.program, self.device, self.how = program, device, how

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.program(images.to(self.device).contiguous()))


def open_exported(
    path: str | Path, *, engine: str = "auto", device: torch.device, half: bool = False
) -> tuple[Engine, Description]:
    """The engine of a file that ``yolomish export`` wrote, and its description; YolomishError where it is none, and for a
    program (TorchScript, torch.export) that was not exported here and that nobody has trusted (see ``yolomish.trust``).

    ``engine`` is one of those that read the format (``auto``: the faster that is installed).
    """
    path = Path(path)
    if path.suffix not in RUNNERS:
        raise YolomishError(f"{path} is no exported model: their names end in {', '.join(RUNNERS)}")
    if not os.path.isfile(path):
        raise YolomishError(f"no such model: {shown_path(path)}")
    if path.suffix != ".xml" and (what := foreign_kind(path)):
        raise YolomishError(f"{path} is no exported model but {what}")
    runners = RUNNERS[path.suffix]
    if engine == "auto":
        here = [r for r in runners if r == "torch" or installed(r)] if device.type == "cpu" else runners[-1:]
        engine = (here or list(runners))[0]
    if engine not in runners:
        known = ENGINES[1:]
        raise YolomishError(f"{path} runs in {' or '.join(runners)}, not in {engine if engine in known else repr(engine)}")
    try:
        made, description = _open(path, engine, device, half)
    except YolomishError:
        raise
    except Exception as error:  # each library raises its own kinds on a damaged file
        reason = first_line(error)
        raise YolomishError(f"{path} cannot be opened by {engine}: {reason}") from None
    return _Guarded(made, description, path), description


class _Guarded:
    """An engine out of a file, whose faults, and maps that its description does not fit, are YolomishErrors naming the file."""

    def __init__(self, engine: Engine, description: Description, path: Path) -> None:
        self.engine, self.path, self.how = engine, path, engine.how
        self.input, self.heads = description.input, description.heads

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        try:
            maps = self.engine(images)
        except Exception as error:  # each library raises its own kinds
            raise YolomishError(f"{self.path} cannot be run by {self.how}: {first_line(error)}") from None
        size, found = images.shape[2:], [tuple(raw.shape) if isinstance(raw, Tensor) else () for raw in maps]
        wanted = [
            (len(images), len(head.mask) * (5 + head.num_classes), size[0] // head.stride, size[1] // head.stride)
            for head in self.heads
        ]
        if found != wanted or any(not raw.is_floating_point() for raw in maps):
            raise YolomishError(f"{self.path} returns maps {shown(found)}, its description says {shown(wanted)}")
        return maps


def _open(path: Path, engine: str, device: torch.device, half: bool) -> tuple[Engine, Description]:
    if engine == "openvino" and device.type != "cpu":
        raise YolomishError(f"openvino runs on the CPU here, not on {device}: use --device cpu")
    if path.suffix == ".onnx":
        description = check_onnx(path)
        return OpenVinoEngine(path, half=half) if engine == "openvino" else OnnxRuntimeEngine(path, device=device), description
    if engine == "openvino":
        check_ir(path)
        made = OpenVinoEngine(path, half=half)
        text = made.model.get_rt_info([KEY]).astype(str) if made.model.has_rt_info([KEY]) else ""
        return made, from_json(text, path)
    if half:
        raise YolomishError(f"{path.suffix} files compute in the precision they were written in: leave --half out")
    require_trust(digest(path).sha256, path, f"a program ({path.suffix})", "pass --trust")
    extra = {f"{KEY}.json": ""}
    if path.suffix == ".torchscript":
        program = torch.jit.load(str(path), map_location=device, _extra_files=extra)
        how = "TorchScript"
    else:
        program = torch.export.load(str(path), extra_files=extra).module().to(device)
        how = "torch.export"
    text = extra[f"{KEY}.json"]
    return ProgramEngine(program, device, how), from_json(text.decode() if isinstance(text, bytes) else text, path)
