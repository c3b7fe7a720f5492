"""The network as torch runs it."""

from __future__ import annotations

import torch
from torch import Tensor

from yolomish.models import YOLOv4


class TorchEngine:
    """``network`` in eval mode and channels_last on ``device``; ``half`` is fp16 on CUDA and bf16 on the CPU."""

    def __init__(self, network: YOLOv4, *, device: torch.device, half: bool = False) -> None:
        self.device = device
        self.dtype = torch.float32 if not half else torch.float16 if device.type == "cuda" else torch.bfloat16
        self.network = network.eval().to(device, self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.heads = network.heads

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.network(images.to(self.device, self.dtype))
