"""Where to compute, and when it is done."""

from __future__ import annotations

import torch

from yolomish.errors import YolomishError


def choose_device(name: str) -> torch.device:
    """The device of a name (``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``); auto = CUDA where there is one, else the CPU.

    YolomishError for a name that torch does not know and for a device that is not here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise YolomishError(f"unknown device {name!r}: auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise YolomishError(f"device {name!r} is not here: {torch.cuda.device_count()} CUDA devices seen; use --device cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise YolomishError("device 'mps' is not here: it needs an Apple processor and a torch built for it; use --device cpu")
    return device


def wait(device: torch.device) -> None:
    """Return when the device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def bf16_missing() -> str:
    """Why bf16 would be slow on this CPU, empty where it is not."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return "" if supported is None or supported() else "this CPU has no bf16 instructions"
