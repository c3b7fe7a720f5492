"""A network in 8 bits, for ONNX Runtime or OpenVINO, kept only with what it then finds on a data set."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from yolomish.config import DataConfig
from yolomish.data.datasets import DetectionData, open_data
from yolomish.data.loader import eval_loader
from yolomish.errors import YolomishError
from yolomish.evaluation.coco import evaluate
from yolomish.evaluation.coco_results import CocoResults
from yolomish.files import make_folder, partial_name, refuse_existing
from yolomish.inference.engines.exported import open_exported
from yolomish.inference.engines.openvino_engine import openvino_core
from yolomish.inference.export.metadata import KEY, Description, EightBits, to_json
from yolomish.inference.export.onnx_graph import INPUT
from yolomish.inference.export.packages import require
from yolomish.inference.export.verify import generated_image
from yolomish.inference.export.write import SUFFIXES, ExportOptions, export_network, format_of, target_files
from yolomish.tasks.detection.pipeline import CPU, Pipeline
from yolomish.tasks.detection.predict import predict
from yolomish.tasks.detection.protocol import training_protocol
from yolomish.types import Metrics, SizeHW
from yolomish.weights.load import LoadedNetwork

PACKAGES = {"onnx": ("onnx", "onnxruntime.quantization"), "openvino": ("nncf", "openvino", "onnx")}  # by format
ENGINES = {"onnx": "onnxruntime", "openvino": "openvino"}
IMAGES = 300  # of training, that set the ranges; NNCF's own default
LEAST_SHARE = 0.5  # of the AP before: a file with less is broken, not rounded
STATED = ("AP", "AP50", "AP75")


@dataclass(frozen=True, kw_only=True)
class Int8Export:
    """The files, the one that is opened first, and what they say of themselves."""

    files: tuple[Path, ...]
    stated: EightBits


def require_int8(format: str) -> None:
    """YolomishError where ``format`` has no form in 8 bits, or a package that makes it is missing."""
    if format not in PACKAGES:
        raise YolomishError(f"--int8 is for --format {' and '.join(PACKAGES)}, not {format}")
    os.environ.setdefault("NNCF_CI", "1")  # NNCF reports its use to its makers; not from here
    for package in PACKAGES[format]:
        require(package)


def export_int8(
    loaded: LoadedNetwork,
    output: str | Path,
    format: str,
    data: DataConfig,
    *,
    image: np.ndarray,
    size_hw: SizeHW,
    options: ExportOptions,
    images: int = IMAGES,
    force: bool = False,
) -> Int8Export:
    """Write a network as a file of ``format`` in 8 bits (see ``write_int8``), its ranges those of up to ``images`` training
    images of ``data``, with AP on the validation split of the fp32 file and of its own in its description.

    The file is read again before it is kept: it returns what was measured. YolomishError where less than half of its AP is
    left, nothing is then written, and for files that are there, unless by ``force``.
    """
    require_int8(format)
    files = target_files(Path(output), format)
    refuse_existing(files, force)
    if options.nms:
        raise YolomishError("--int8 and --nms do not go together: our engines do the suppression by themselves")
    network = loaded.network
    train = open_data(data, "train").with_classes(loaded.names, network.name).first(images)
    val = open_data(data, "val").with_classes(loaded.names, network.name)
    make_folder(files[0].parent)
    with tempfile.TemporaryDirectory(dir=files[0].parent, prefix=partial_name(files[0])) as folder:
        whole, small = write_int8(loaded, Path(folder), format, train, image=image, size_hw=size_hw, options=options)
        before, after = (_evaluate(file, val, size_hw) for file in (whole, small))
        if not after.score >= LEAST_SHARE * before.score:
            raise YolomishError(f"8 bits leave AP {after.score:.4f} of {before.score:.4f}: nothing was written")
        stated = EightBits(
            by=versions(format),
            images=len(train),
            protocol=training_protocol(network.input).describe(len(val), val.source.name, size_hw),
            fp32=tuple(before.values[name] for name in STATED),
            int8=tuple(after.values[name] for name in STATED),
        )
        final = _described(small, Path(folder) / files[0].name, stated)
        refuse_existing(files, force)
        for file in reversed(files):  # the file that is opened comes last
            os.replace(final.with_suffix(file.suffix), file)
    return Int8Export(files=files, stated=stated)


def write_int8(
    loaded: LoadedNetwork,
    folder: Path,
    format: str,
    images: DetectionData,
    *,
    image: np.ndarray | None = None,
    size_hw: SizeHW,
    options: ExportOptions,
) -> tuple[Path, Path]:
    """The paths of a network's file of ``format`` in fp32, verified (see ``export_network``), and in 8 bits, both in ``folder``.

    Convolutions compute in 8 bits, weights per channel; the ranges of maps are those seen on ``images``, resized as for an
    evaluation. The heads' last convolutions stay in fp32: their logits become boxes by an exponential.
    """
    require_int8(format)
    suffix = SUFFIXES[format][0]
    whole, small = folder / f"fp32{suffix}", folder / f"int8{suffix}"
    picture = generated_image() if image is None else image
    export_network(loaded, whole, format, image=picture, size_hw=size_hw, options=options)
    (_by_onnxruntime if format == "onnx" else _by_nncf)(whole, small, _Inputs(images, loaded, size_hw))
    return whole, small


def predict_int8(file: Path, data: DetectionData, size_hw: SizeHW, *, progress: bool = False) -> CocoResults:
    """COCO results of an exported file on ``data`` by the protocol "training", in the engine of its format."""
    engine, description = open_exported(file, engine=ENGINES[format_of(file)], device=CPU)
    pipeline = Pipeline(runner=engine, protocol=training_protocol(description.input), size_hw=size_hw)
    with torch.inference_mode():
        return predict(pipeline, data, batch=1, progress=progress)


def _evaluate(file: Path, data: DetectionData, size_hw: SizeHW) -> Metrics:
    return evaluate(data.coco(), predict_int8(file, data, size_hw, progress=True), data.names, data.category_ids)


@dataclass(frozen=True)
class _Inputs:
    """The network's inputs of a data set, one image each, as often as they are asked for."""

    data: DetectionData
    loaded: LoadedNetwork
    size_hw: SizeHW

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[np.ndarray]:
        spec = self.loaded.network.input
        for batch in eval_loader(self.data, size_hw=self.size_hw, resize=training_protocol(spec).resize_image, batch=1):
            yield spec.normalise(batch.images).contiguous().numpy()


class _Reader:
    """What ``quantize_static`` asks for its inputs."""

    def __init__(self, images: _Inputs) -> None:
        self.images = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next input by name, None after the last."""
        image = next(self.images, None)
        return None if image is None else {INPUT: image}


def _by_onnxruntime(source: Path, target: Path, images: _Inputs) -> None:
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


def _by_nncf(source: Path, target: Path, images: _Inputs) -> None:
    nncf, ov = require("nncf"), require("openvino")
    model = openvino_core().read_model(str(source))
    nncf.set_log_level(40)  # logging.ERROR: it tells of every step
    with contextlib.redirect_stdout(sys.stderr):  # its progress bars
        made = nncf.quantize(
            model,
            nncf.Dataset(images),  # read twice: for the ranges, then to correct biases
            preset=nncf.QuantizationPreset.MIXED,  # symmetric weights, asymmetric maps: Mish reaches -0.31
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(names=[_last_convolution(output.get_node()) for output in model.outputs]),
        )
    made.set_rt_info(model.get_rt_info([KEY]).astype(str), [KEY])
    ov.save_model(made, str(target), compress_to_fp16=False)


def _last_convolution(result: Any) -> str:
    node = result
    while node.get_type_name() != "Convolution":
        node = node.input_value(0).get_node()
    return str(node.get_friendly_name())


def versions(format: str) -> str:
    """What makes and runs 8 bits of ``format``."""
    if format == "onnx":
        return f"ONNX Runtime {require('onnxruntime').__version__}"
    return f"NNCF {require('nncf').__version__}, OpenVINO {require('openvino').__version__.split('-')[0]}"


def _described(small: Path, target: Path, stated: EightBits) -> Path:
    """``target``, the network of ``small`` whose description says ``stated``; YolomishError unless both return the same."""
    format = format_of(small)
    before, description = open_exported(small, engine=ENGINES[format], device=CPU)
    text = to_json(dataclasses.replace(description, eight_bits=stated))
    if format == "onnx":
        onnx = require("onnx")
        model = onnx.load(small)
        next(entry for entry in model.metadata_props if entry.key == KEY).value = text
        onnx.save(model, target)
    else:
        ir = openvino_core().read_model(str(small))
        ir.set_rt_info(text, [KEY])
        require("openvino").save_model(ir, str(target), compress_to_fp16=False)
    after, read = open_exported(target, engine=ENGINES[format], device=CPU)
    _require_same(before(_probe(description)), after(_probe(description)), read, stated)
    return target


def _probe(description: Description) -> torch.Tensor:
    spec = description.input
    return torch.rand(1, spec.channels, *spec.size_hw, generator=torch.Generator().manual_seed(0))


def _require_same(maps: tuple[torch.Tensor, ...], again: tuple[torch.Tensor, ...], read: Description, stated: EightBits) -> None:
    if read.eight_bits != stated or not all(torch.allclose(a, b, atol=1e-4) for a, b in zip(maps, again, strict=True)):
        raise YolomishError("the file in 8 bits returns other maps once it is written: nothing was kept")
