"""The network as ONNX Runtime runs it. Its CPU provider has no bf16."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolomish.errors import YolomishError
from yolomish.inference.export.onnx_graph import INPUT, write_graph
from yolomish.inference.export.packages import require
from yolomish.networks import Network
from yolomish.threads import waits_passively
from yolomish.types import HeadSpec, InputSpec


class OnnxRuntimeEngine:
    """A session over ``model``, an ONNX file's path or its bytes, with as many threads as torch has."""

    input: InputSpec
    heads: tuple[HeadSpec, ...]

    def __init__(self, model: str | Path | bytes, *, device: torch.device) -> None:
        ort = require("onnxruntime")
        provider = "CUDAExecutionProvider" if device.type == "cuda" else "CPUExecutionProvider"
        if provider not in ort.get_available_providers():
            raise YolomishError(f"onnxruntime here has no {provider}: pip install onnxruntime-gpu, or use --device cpu")
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        if waits_passively():
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        source: Any = model if isinstance(model, bytes) else os.fspath(model)
        where = (provider, {"device_id": device.index or 0}) if device.type == "cuda" else provider
        self.session = ort.InferenceSession(source, options, providers=[where], enable_fallback=0)  # it prints, and tries again
        self.how = f"ONNX Runtime {ort.__version__} on {device.type}"

    @classmethod
    def of(cls, network: Network, *, device: torch.device) -> OnnxRuntimeEngine:
        """The engine of a torch network, through ONNX in memory; Mish in the form that is cheapest here."""
        engine = cls(write_graph(network, elementary=True).SerializeToString(), device=device)
        engine.input, engine.heads = network.input, network.heads
        return engine

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.session.run(None, {INPUT: images.contiguous().numpy()})
        return tuple(torch.from_numpy(raw) for raw in maps)
