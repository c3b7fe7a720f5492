"""The network as torch runs it: batch norms folded, channels_last, weights packed on the CPU, CUDA graphs by ``compile``."""

from __future__ import annotations

import threading
import warnings

import torch
from torch import Tensor

from yolomish.errors import YolomishError
from yolomish.inference.engines.packed import packed, packing_missing
from yolomish.networks import Network
from yolomish.nn.fold import folded
from yolomish.ops.device import bf16_missing


class TorchEngine:
    """A folded copy of ``network`` on ``device``; ``half`` is fp16 on CUDA and bf16 on the CPU; ``compile`` goes through
    torch.compile, which takes a minute at the first image of each size, and replays CUDA graphs on CUDA.

    ``how`` says in a few words what runs. The network itself is left as it was.
    """

    def __init__(self, network: Network, *, device: torch.device, half: bool = False, compile: bool = False) -> None:
        self.device = device
        self.dtype = torch.float32 if not half else torch.float16 if device.type == "cuda" else torch.bfloat16
        if half and device.type == "cpu" and (missing := bf16_missing()):
            raise YolomishError(f"{missing}, so --half would be slower than fp32: leave it out")
        self.input, self.heads = network.input, network.heads
        self.lock = threading.Lock() if compile and device.type == "cuda" else None  # graphs share one set of buffers
        reason = "compiled" if compile else "" if device.type == "cpu" else "no oneDNN on CUDA"
        reason = reason or packing_missing(self.dtype)
        if reason:
            self.network = folded(network).to(device, self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.how = f"torch in {_word(self.dtype)} on {device}: batch norms folded, channels_last ({reason})"
        else:
            self.network = packed(network.cpu(), self.dtype)
            self.how = f"torch in {_word(self.dtype)} on the CPU: batch norms folded, weights packed"
        self.run = self.network
        if compile:
            self.run = torch.compile(self.network, **_compile_options(device))
            how = "CUDA graphs" if device.type == "cuda" else "frozen weights"
            self.how = f"torch.compile in {_word(self.dtype)} on {device} with {how}"

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        images = images.to(self.device, self.dtype).contiguous(memory_format=torch.channels_last)
        if self.lock is None:
            return self.run(images)
        with self.lock:
            return tuple(raw.clone() for raw in self.run(images))


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.").replace("bfloat", "bf").replace("float", "fp")


def _compile_options(device: torch.device) -> dict:
    if device.type == "cuda":
        return {"mode": "reduce-overhead"}
    warnings.filterwarnings("ignore", message=".*freezing.*")
    return {"options": {"freezing": True}, "dynamic": False}
