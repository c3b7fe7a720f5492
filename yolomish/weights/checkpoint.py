"""Checkpoints are plain dicts of tensors, strings and numbers: they load with ``weights_only=True`` and run no code."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from yolomish.config import TrainConfig, check_fields, from_dict, to_dict
from yolomish.errors import YolomishError, first_line, shown
from yolomish.files import digest, foreign_kind, replace_file, shown_path
from yolomish.networks.scope import activation_files
from yolomish.trust import is_trusting

FORMAT = "yolomish-checkpoint-2"
KEYS = ("config", "model", "ema", "ema_updates", "optimizer", "scaler", "names", "progress")


def save_checkpoint(
    path: str | Path,
    *,
    config: TrainConfig,
    model: nn.Module,
    names: tuple[str, ...],
    average: nn.Module | None = None,
    updates: int = 0,
    optimizer: torch.optim.Optimizer | None = None,
    scaler: torch.amp.GradScaler | None = None,
    progress: dict[str, Any] | None = None,
) -> None:
    """Write all that resuming needs, atomically.

    ``config`` is the run's, ``model`` the network and ``names`` its classes; ``average`` holds the averaged weights after
    so many ``updates`` (None: no averaging); ``optimizer`` and ``scaler`` are there in a run that can go on; ``progress``
    says where it stands, in plain values.
    """
    content = {
        "format": FORMAT,
        "config": to_dict(config),
        "model": model.state_dict(),
        "ema": average.state_dict() if average else None,
        "ema_updates": updates,
        "optimizer": optimizer.state_dict() if optimizer else None,
        "scaler": scaler.state_dict() if scaler else None,
        "names": list(names),
        "progress": progress or {},
        "activation_files": activation_files(config.model),
    }
    replace_file(path, lambda temporary: torch.save(content, temporary))


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content, tensors on the CPU, every part of the type that it must have; YolomishError naming the file
    where it is not one, and where a file of code that it was trained with has changed since."""
    path = Path(path)
    if not os.path.isfile(path):
        raise YolomishError(f"no such checkpoint: {shown_path(path)}")
    if what := foreign_kind(path):
        raise YolomishError(f"{path} is no checkpoint but {what}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises what it likes on a damaged file
        if held := _foreign_objects(path):
            raise YolomishError(
                f"{path} is not a yolomish checkpoint: it holds objects of another program ({shown(held)}), and loading those "
                "would run code; take a .pt trained here, a Darknet .weights or a name of `yolomish weights list`"
            ) from None
        raise YolomishError(f"{path} is not a yolomish checkpoint or is damaged: {first_line(error, 120)}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT or any(k not in content for k in KEYS):
        raise YolomishError(f"{path} is not a yolomish checkpoint: it was written by another program")
    for key, (fits, must) in SHAPES.items():
        if not fits(content.get(key)):
            raise YolomishError(f"{path} is damaged: {key!r} must be {must}, not {shown(content.get(key))}")
    for name, sha256 in (content.get("activation_files") or {}).items():
        file = f"{name.rpartition('.py:')[0]}.py"
        if os.path.isfile(file) and digest(file).sha256 != sha256 and not is_trusting():
            raise YolomishError(
                f"{path} was trained with other code in {shown_path(file)} than is there now (SHA-256 {sha256[:12]}...): "
                "put that back, or pass --trust to run what is there"
            )
    return content


def _foreign_objects(path: Path) -> str:
    """The first class beyond tensors and plain values that a file holds; empty where there is none or it cannot be read."""
    try:
        return next(iter(torch.serialization.get_unsafe_globals_in_checkpoint(path)), "")
    except Exception:  # torch's reader raises what it likes on a damaged file
        return ""


def config_of(content: dict[str, Any], path: str | Path) -> TrainConfig:
    """The configuration in a checkpoint's content; YolomishError naming the file for a value that cannot be."""
    config = from_dict(TrainConfig, content["config"], f"configuration in {path}")
    try:
        check_fields(config)
    except YolomishError as error:
        raise YolomishError(f"configuration in {path}: {error}") from None
    return config


def require_finite(state: Mapping[str, Any], path: str | Path) -> None:
    """YolomishError naming the file and the tensor where a weight is NaN or infinite."""
    for name, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            count = int((~torch.isfinite(value)).sum())
            raise YolomishError(f"{path}: {count} of {value.numel()} values of {name} are not finite: did its training diverge?")


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in value.items())


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(k, str) for k in value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def _is_progress(value: Any) -> bool:
    return _is_mapping(value) and all(_is_count(value.get(key, 0)) for key in ("images_seen", "epoch", "position"))


def _are_sources(value: Any) -> bool:
    return value is None or (_is_mapping(value) and all(isinstance(v, str) for v in value.values()))


# What each part of a checkpoint must be, in a test and in words
SHAPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "config": (_is_mapping, "a mapping of settings"),
    "model": (_is_state, "a mapping of names to tensors"),
    "ema": (lambda value: value is None or _is_state(value), "nothing or a mapping of names to tensors"),
    "ema_updates": (_is_count, "a number of updates"),
    "optimizer": (lambda value: value is None or _is_mapping(value), "nothing or an optimiser's state"),
    "scaler": (lambda value: value is None or _is_mapping(value), "nothing or a scaler's state"),
    "names": (_are_names, "a list of class names"),
    "progress": (_is_progress, "a mapping with counts"),
    "activation_files": (_are_sources, "a mapping of activations to checksums"),
}
