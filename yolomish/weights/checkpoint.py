"""Checkpoints are plain dicts of tensors, strings and numbers: they load with ``weights_only=True`` and run no code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from yolomish.config import TrainConfig, to_dict
from yolomish.errors import YolomishError, first_line
from yolomish.files import foreign_kind, replace_file

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
    }
    replace_file(path, lambda temporary: torch.save(content, temporary))


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content, tensors on the CPU; YolomishError naming the file where it is not one."""
    path = Path(path)
    if not path.is_file():
        raise YolomishError(f"no such checkpoint: {path}")
    if what := foreign_kind(path):
        raise YolomishError(f"{path} is no checkpoint but {what}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, LookupError, OSError) as error:
        reason = first_line(error, 120)
        raise YolomishError(f"{path} is not a yolomish checkpoint or is damaged: {reason}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT or any(k not in content for k in KEYS):
        raise YolomishError(f"{path} is not a yolomish checkpoint: it was written by another program")
    return content
