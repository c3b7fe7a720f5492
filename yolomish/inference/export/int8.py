"""An ONNX file in 8 bits by ONNX Runtime's static quantisation, kept only with what it then finds on a data set."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from yolomish.config import DataConfig
from yolomish.data.datasets import DetectionData, open_data
from yolomish.data.loader import eval_loader
from yolomish.errors import YolomishError
from yolomish.evaluation.coco import evaluate
from yolomish.files import refuse_existing
from yolomish.inference.engines.exported import open_exported
from yolomish.inference.export.onnx_graph import INPUT
from yolomish.inference.export.packages import require
from yolomish.inference.export.write import ExportOptions, export_network
from yolomish.tasks.detection.pipeline import CPU, Pipeline
from yolomish.tasks.detection.predict import predict
from yolomish.tasks.detection.protocol import training_protocol
from yolomish.types import Metrics, SizeHW
from yolomish.weights.load import LoadedNetwork

LEAST_SHARE = 0.5  # of the AP before: a file with less is broken, not rounded


@dataclass(frozen=True, kw_only=True)
class Int8Export:
    """The file, how many images set its ranges, and what fp32 and it find on the validation split by ``protocol``."""

    file: Path
    images: int
    before: Metrics
    after: Metrics
    protocol: str


def export_int8(
    loaded: LoadedNetwork,
    output: str | Path,
    data: DataConfig,
    *,
    image: np.ndarray,
    size_hw: SizeHW,
    options: ExportOptions,
    images: int = 300,
    force: bool = False,
) -> Int8Export:
    """Write a network as an ONNX file whose convolutions compute in 8 bits, weights per channel; the ranges of maps are those
    seen on up to ``images`` training images, resized as for an evaluation. The heads' last convolutions stay in fp32.

    The fp32 file is verified first (see ``export_network``, also for ``image``, ``size_hw`` and ``options``). YolomishError
    where less than half of its AP is left, nothing is then written, and for an ``output`` that is there, unless by ``force``.
    """
    refuse_existing([Path(output)], force)
    output, network = Path(output), loaded.network
    if options.nms:
        raise YolomishError("--int8 and --nms do not go together: our engines do the suppression by themselves")
    train = open_data(data, "train").with_classes(loaded.names, network.name).first(images)
    val = open_data(data, "val").with_classes(loaded.names, network.name)
    protocol = training_protocol(network.input)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.stem}-part-") as folder:
        whole, small = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        export_network(loaded, whole, "onnx", image=image, size_hw=size_hw, options=options)
        _quantise(whole, small, _images(train, loaded, size_hw))
        before, after = (_found(file, val, size_hw) for file in (whole, small))
        if not after.score >= LEAST_SHARE * before.score:
            raise YolomishError(f"8 bits leave AP {after.score:.4f} of {before.score:.4f}: nothing was written")
        os.replace(small, output)
    stated = protocol.describe(len(val), val.source.name, size_hw)
    return Int8Export(file=output, images=len(train), before=before, after=after, protocol=stated)


def _images(data: DetectionData, loaded: LoadedNetwork, size_hw: SizeHW) -> Iterator[dict[str, np.ndarray]]:
    spec = loaded.network.input
    for batch in eval_loader(data, size_hw=size_hw, resize=training_protocol(spec).resize_image, batch=1):
        yield {INPUT: spec.normalise(batch.images).contiguous().numpy()}


class _Reader:
    """What ``quantize_static`` asks for its inputs."""

    def __init__(self, images: Iterator[dict[str, np.ndarray]]) -> None:
        self.images = images

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next input by name, None after the last."""
        return next(self.images, None)


def _quantise(source: Path, target: Path, images: Iterator[dict[str, np.ndarray]]) -> None:
    onnx, quantization = require("onnx"), require("onnxruntime.quantization")

    model = onnx.load(source)
    results = {result.name for result in model.graph.output}
    last = [node.name for node in model.graph.node if node.op_type == "Conv" and results & set(node.output)]
    quantization.quantize_static(
        source,
        target,
        _Reader(images),
        op_types_to_quantize=["Conv"],
        nodes_to_exclude=last,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    made = onnx.load(target)
    if not made.metadata_props:
        made.metadata_props.extend(model.metadata_props)
        onnx.save(made, target)


def _found(file: Path, data: DetectionData, size_hw: SizeHW) -> Metrics:
    engine, description = open_exported(file, engine="onnxruntime", device=CPU)
    pipeline = Pipeline(runner=engine, protocol=training_protocol(description.input), size_hw=size_hw)
    with torch.inference_mode():
        results = predict(pipeline, data, batch=1, progress=True)
    return evaluate(data.coco(), results, data.names, data.category_ids)
