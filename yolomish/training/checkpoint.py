"""Checkpoints are plain dicts of tensors, strings and numbers: they load with ``weights_only=True`` and run no code."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from yolomish.config import TrainConfig, from_dict, load_model_config, to_dict
from yolomish.darknet.cfg import read_cfg
from yolomish.darknet.weights import fitting_classes, is_darknet_file, read_weights
from yolomish.data.coco_names import COCO_NAMES
from yolomish.errors import YolomishError
from yolomish.models import YOLOv4, build_model
from yolomish.training.optim import EMA
from yolomish.types import ResizeMode
from yolomish.weights.store import locate_weights

PARTIAL = "-part-"
FORMAT = "yolomish-checkpoint-2"
KEYS = ("config", "model", "ema", "ema_updates", "optimizer", "scaler", "names", "progress")


@dataclass(frozen=True, kw_only=True)
class Network:
    """A model ready to use, in eval mode on the CPU, with its class names and the resize that it was trained with."""

    model: YOLOv4
    names: tuple[str, ...]
    resize: ResizeMode
    image_size: int


def replace_file(path: str | Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a new file beside ``path``, sync it to disk and put it in ``path``'s place in one move.

    A full disk or a folder that cannot be written is a YolomishError; what was at ``path`` is then untouched.
    """
    path = Path(path)
    temporary = Path()
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}{PARTIAL}", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp gives 0600
        os.replace(temporary, path)
    except OSError as error:
        raise YolomishError(f"{path} cannot be written: {error.strerror or error}; what was there is intact") from None
    except RuntimeError as error:  # torch.save reports a full disk so
        if "PytorchStreamWriter" not in str(error) and "inline_container" not in str(error):
            raise
        raise YolomishError(f"{path} cannot be written: is the disk full? What was there is intact") from None
    finally:
        if temporary != Path():
            temporary.unlink(missing_ok=True)


def clear_partial_files(folder: Path) -> None:
    """Remove what a killed ``replace_file`` left in ``folder``."""
    for path in folder.glob(f".*{PARTIAL}*"):
        path.unlink(missing_ok=True)


def save_checkpoint(
    path: str | Path,
    *,
    config: TrainConfig,
    model: nn.Module,
    names: tuple[str, ...],
    ema: EMA | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    scaler: torch.amp.GradScaler | None = None,
    progress: dict[str, Any] | None = None,
) -> None:
    """Write all that resuming needs, atomically. ``progress`` says where the run stands, in plain values."""
    content = {
        "format": FORMAT,
        "config": to_dict(config),
        "model": model.state_dict(),
        "ema": ema.model.state_dict() if ema else None,
        "ema_updates": ema.updates if ema else 0,
        "optimizer": optimizer.state_dict() if optimizer else None,
        "scaler": scaler.state_dict() if scaler else None,
        "names": list(names),
        "progress": progress or {},
    }
    replace_file(path, lambda temporary: torch.save(content, temporary))


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content, tensors on the CPU; YolomishError naming the file where it is not one."""
    path = Path(path)
    if not path.is_file():
        raise YolomishError(f"no such checkpoint: {path}")
    with path.open("rb") as file:
        start = file.read(64).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise YolomishError(f"{path} is a web page, not a checkpoint: the download went wrong, fetch it again")
    if start.startswith(b"version https://git-lfs"):
        raise YolomishError(f"{path} is a Git LFS pointer, not a checkpoint: run `git lfs pull`")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, LookupError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise YolomishError(f"{path} is not a yolomish checkpoint or is damaged: {reason}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT or any(k not in content for k in KEYS):
        raise YolomishError(f"{path} is not a yolomish checkpoint: it was written by another program")
    return content


def load_network(weights: str, *, cfg: str = "", model: str = "yolov4") -> Network:
    """The network in a ``.pt`` checkpoint (averaged weights where it has them) or a Darknet ``.weights`` file.

    ``weights`` is a path, or what ``locate_weights`` knows by name: ``demo``, ``yolov4``, a file of the weights folder.
    A ``.weights`` file holds no structure: ``cfg`` gives it, else the shipped model or YAML named ``model``, with as many
    classes as make the file's length. 80 classes get COCO's names, others their numbers; images are stretched, as Darknet
    does.
    """
    path = locate_weights(weights)
    if is_darknet_file(path):
        structure = read_cfg(cfg) if cfg else load_model_config(model)
        if not cfg and (classes := fitting_classes(path, structure)):
            structure = replace(structure, num_classes=classes)
        network = build_model(structure)
        header = read_weights(path, network)
        if header.convolutions < header.total:
            raise YolomishError(
                f"{path} holds {header.convolutions} of {structure.name}'s {header.total} convolutions: it is to train from"
            )
        count = structure.num_classes
        names = COCO_NAMES if count == len(COCO_NAMES) else tuple(str(i) for i in range(count))
        return Network(model=network.eval(), names=names, resize="stretch", image_size=structure.image_size)
    if cfg:
        raise YolomishError(f"{path} is no Darknet .weights file and needs no cfg: leave out {cfg}")
    content = read_checkpoint(path)
    config = from_dict(TrainConfig, content["config"], f"configuration in {weights}")
    network = build_model(config.model)
    try:
        network.load_state_dict(content["ema"] or content["model"])
    except RuntimeError as error:
        raise YolomishError(f"{weights} does not fit its own model: {' '.join(str(error).split())[:200]}") from None
    return Network(
        model=network.eval(),
        names=tuple(content["names"]),
        resize=cast(ResizeMode, config.resize),
        image_size=config.image_size,
    )
