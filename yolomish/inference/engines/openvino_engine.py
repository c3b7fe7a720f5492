"""The network as OpenVINO runs it on a CPU: Mish is fused into the convolutions, bf16 where the CPU has it."""

from __future__ import annotations

import os
import threading
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolomish.errors import YolomishError
from yolomish.inference.export.onnx_graph import write_graph
from yolomish.inference.export.packages import require
from yolomish.networks import Network
from yolomish.types import HeadSpec, InputSpec

MOST_SHAPES = 2  # compiled at once; each holds its own copy of the weights


@lru_cache(maxsize=1)
def openvino_core() -> Any:
    """The one ``openvino.Core`` of this process; YolomishError where OpenVINO is not installed.

    Its CPU plugin lends the thread a stack for signals, and takes it back when the Core goes. Of two Cores, the first made
    and first gone, the second restores the first one's, which is freed: the next signal was a segmentation fault.
    """
    return require("openvino").Core()


class OpenVinoEngine:
    """``model`` (IR or ONNX: a path, or ONNX as bytes), compiled for each input shape as it comes.

    A fixed shape is faster than an open one. ``half`` computes in bf16; YolomishError where the CPU has none.
    """

    input: InputSpec
    heads: tuple[HeadSpec, ...]

    def __init__(self, model: str | Path | bytes, *, half: bool = False) -> None:
        self.ov = require("openvino")
        self.core = openvino_core()
        if half and "BF16" not in self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise YolomishError("this CPU has no bf16 instructions that OpenVINO uses: leave --half out")
        self.model = self.core.read_model(BytesIO(model) if isinstance(model, bytes) else os.fspath(model))
        self.settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
        }
        self.how = f"OpenVINO {self.ov.__version__.split('-')[0]} in {'bf16' if half else 'fp32'}"
        self.compiled: dict[tuple[int, ...], Any] = {}
        self.lock = threading.Lock()
        self.local = threading.local()

    @classmethod
    def of(cls, network: Network, *, half: bool = False) -> OpenVinoEngine:
        """The engine of a torch network, through ONNX in memory."""
        engine = cls(write_graph(network).SerializeToString(), half=half)
        engine.input, engine.heads = network.input, network.heads
        return engine

    def _request(self, shape: tuple[int, ...]) -> Any:
        """This thread's inference request for ``shape``."""
        with self.lock:
            if shape not in self.compiled:
                while len(self.compiled) >= MOST_SHAPES:
                    self.compiled.pop(next(iter(self.compiled)))
                model = self.model.clone()
                model.reshape(list(shape))
                self.compiled[shape] = self.core.compile_model(model, "CPU", self.settings)
            compiled = self.compiled[shape]
        held = getattr(self.local, "held", None)
        if held is None or held[0] is not compiled:
            self.local.held = held = (compiled, compiled.create_infer_request())
        return held[1]

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        request = self._request(tuple(images.shape))
        request.infer([self.ov.Tensor(images.contiguous().numpy(), shared_memory=True)], share_inputs=True)
        return tuple(torch.from_numpy(request.get_output_tensor(i).data.copy()) for i in range(len(self.model.outputs)))
