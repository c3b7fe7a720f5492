"""What runs the network: an engine turns images into raw maps, whatever library is behind it."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from yolomish.errors import YolomishError, unknown_name
from yolomish.inference.engines.onnxruntime_engine import OnnxRuntimeEngine
from yolomish.inference.engines.openvino_engine import OpenVinoEngine
from yolomish.inference.engines.torch_engine import TorchEngine
from yolomish.inference.export.packages import installed
from yolomish.networks import Network
from yolomish.types import HeadSpec, InputSpec

ENGINES = ("auto", "torch", "onnxruntime", "openvino")


class Engine(Protocol):
    """Images as ``input`` says, on the CPU -> the network's raw maps, described by ``heads``.

    Any number of threads may call one engine at once. ``how`` says in one line what runs.
    """

    input: InputSpec
    heads: tuple[HeadSpec, ...]
    how: str

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]: ...


def build_engine(name: str, network: Network, *, device: torch.device, half: bool = False, compile: bool = False) -> Engine:
    """The engine called ``name`` (``auto``: the fastest here) for ``network``; ``half`` is fp16 on CUDA, bf16 on the CPU.

    ``compile`` is torch's alone. YolomishError on an unknown or missing engine, or what it cannot do.
    """
    if name not in ENGINES:
        raise unknown_name("engine", name, ENGINES)
    if compile and name not in ("auto", "torch"):
        raise YolomishError(f"--compile is torch's: {name} compiles by itself; leave it out or use --engine torch")
    if name == "openvino":
        return _openvino(network, device, half)
    if name == "onnxruntime":
        if half:
            raise YolomishError("onnxruntime computes no bf16 on a CPU: use --engine openvino or torch, or leave --half out")
        return OnnxRuntimeEngine.of(network, device=device)
    reason = ""
    if name == "auto" and not compile and device.type == "cpu":
        if not (installed("openvino") and installed("onnx")):
            reason = "faster with OpenVINO: pip install 'yolomish[openvino]'"
        else:
            try:
                engine = _openvino(network, device, half)
                engine.how += ", the fastest on CPUs"
                return engine
            except YolomishError as error:  # an activation that ONNX cannot say, or no bf16
                reason = f"not OpenVINO: {error}"
    torch_engine = TorchEngine(network, device=device, half=half, compile=compile)
    torch_engine.how += f"; {reason}" if reason else ""
    return torch_engine


def _openvino(network: Network, device: torch.device, half: bool) -> OpenVinoEngine:
    if device.type != "cpu":
        raise YolomishError(f"openvino runs on the CPU here, not on {device}: use --device cpu or --engine torch")
    return OpenVinoEngine.of(network, half=half)
