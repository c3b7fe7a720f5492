"""What runs the network: an engine has ``heads`` and turns images into raw maps, whatever library is behind it."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from yolomish.errors import unknown_name
from yolomish.inference.engines.torch_engine import TorchEngine
from yolomish.models import YOLOv4
from yolomish.types import HeadSpec

ENGINES = ("auto", "torch")


class Engine(Protocol):
    """Images (B, 3, H, W) float32 RGB in 0..1 on the CPU -> the network's raw maps, described by ``heads``.

    Any number of threads may call one engine at once.
    """

    heads: tuple[HeadSpec, ...]

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]: ...


def build_engine(name: str, network: YOLOv4, *, device: torch.device, half: bool = False) -> Engine:
    """The engine called ``name`` (``auto``: the fastest here) for ``network``; ``half`` is fp16 on CUDA, bf16 on the CPU."""
    if name not in ENGINES:
        raise unknown_name("engine", name, ENGINES)
    return TorchEngine(network, device=device, half=half)
