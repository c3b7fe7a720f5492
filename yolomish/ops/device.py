"""Where to compute, and when it is done."""

from __future__ import annotations

import torch

from yolomish.errors import YolomishError


def choose_device(name: str) -> torch.device:
    """The device of a name (``auto``, ``cpu``, ``cuda``, ``cuda:1``); auto = CUDA where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise YolomishError(f"unknown device {name!r}: auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise YolomishError(f"device {name!r} is not here: {torch.cuda.device_count()} CUDA devices seen; use --device cpu")
    return device


def wait(device: torch.device) -> None:
    """Until the device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
