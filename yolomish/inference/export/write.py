"""``yolomish export``: write a network for another runtime, and only what has given torch's own numbers."""

from __future__ import annotations

import copy
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from yolomish.errors import YolomishError, unknown_name
from yolomish.inference.engines.exported import open_exported
from yolomish.inference.engines.openvino_engine import openvino_core
from yolomish.inference.export.darknet_check import check_darknet
from yolomish.inference.export.metadata import KEY, Description, describe, to_json
from yolomish.inference.export.onnx_graph import MISH_OPSET, write_graph
from yolomish.inference.export.onnx_nms import add_nms
from yolomish.inference.export.packages import installed, require
from yolomish.inference.export.verify import Agreement, check_nms, compare, probe_images
from yolomish.networks import YOLOv4
from yolomish.nn.blocks import ConvBlock
from yolomish.nn.fold import fold_batch_norm
from yolomish.weights.describe import write_darknet
from yolomish.weights.load import LoadedNetwork

if TYPE_CHECKING:
    import onnx

SUFFIXES = {
    "onnx": (".onnx",),
    "openvino": (".xml", ".bin"),
    "torchscript": (".torchscript",),
    "torch_export": (".pt2",),
    "darknet": (".cfg", ".weights", ".names"),
}
MOST_CELLS = 512  # torch.export bounds a side, in cells of 32 px


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """``opset`` and ``elementary`` (no Mish operator) are ONNX's and OpenVINO's; ``nms`` with ``conf``, ``iou`` and
    ``max_det`` (a class) is ONNX's. ``dynamic`` leaves batch, height and width open."""

    opset: int = MISH_OPSET
    elementary: bool = False
    dynamic: bool = True
    nms: bool = False
    conf: float = 0.25
    iou: float = 0.45
    max_det: int = 100


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The files written and how far they are from the torch network."""

    files: tuple[Path, ...]
    agreement: Agreement


def export_network(
    network: LoadedNetwork, output: str | Path, format: str, *, image: np.ndarray, image_size: int, options: ExportOptions
) -> Exported:
    """Write ``network`` as ``format`` (a key of ``SUFFIXES``) to ``output`` and its siblings, verified on ``image``.

    ``image`` is (H, W, 3) uint8 RGB, ``image_size`` the network's side in px. The files are made in a folder beside, read
    back, compared with the torch network and only then moved into place. YolomishError where they differ from it by more
    than ``verify.TOLERANCE``, a package is missing or the format cannot hold the network; nothing is then changed.
    """
    if format not in SUFFIXES:
        raise unknown_name("export format", format, SUFFIXES)
    if options.nms and format != "onnx":
        raise YolomishError(f"--nms is for onnx alone, not {format}: our engines do it by themselves")
    output = Path(output)
    if output.suffix != SUFFIXES[format][0]:
        raise YolomishError(f"a file of format {format} must end in {SUFFIXES[format][0]}, not {output.name!r}")
    description = describe(network, image_size=image_size, dynamic=options.dynamic, nms=options.nms)
    probes = probe_images(network, image, image_size=image_size, dynamic=options.dynamic and format != "darknet")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.stem}-part-") as folder:
            partial = Path(folder) / output.name
            WRITERS[format](network, partial, description, options)
            if format == "darknet":
                agreement = check_darknet(network, partial, probes[0])
            elif options.nms:
                agreement = check_nms(network.model, partial, probes, options.conf, options.iou, options.max_det)
            else:
                engine, _ = open_exported(partial, engine=_checker(format), device=torch.device("cpu"))
                agreement = compare(network.model, engine, probes, f"the {format} file")
            files = tuple(output.with_suffix(suffix) for suffix in SUFFIXES[format])
            for file in reversed(files):  # the file that is opened comes last
                os.replace(partial.with_suffix(file.suffix), file)
    except OSError as error:
        raise YolomishError(f"{output} cannot be written: {error.strerror or error}; what was there is intact") from None
    return Exported(files=files, agreement=agreement)


def _checker(format: str) -> str:
    if format != "onnx":
        return "auto"
    return "onnxruntime" if installed("onnxruntime") or not installed("openvino") else "openvino"


def _onnx_model(network: LoadedNetwork, description: Description, options: ExportOptions) -> onnx.ModelProto:
    model = write_graph(
        network.model,
        opset=options.opset,
        elementary=options.elementary,
        dynamic=options.dynamic,
        image_size=description.image_size,
    )
    if options.nms:
        add_nms(model, network.model.heads, conf=options.conf, iou=options.iou, max_det=options.max_det)
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, to_json(description)
    return model


def _write_onnx(network: LoadedNetwork, path: Path, description: Description, options: ExportOptions) -> None:
    onnx = require("onnx")
    model = _onnx_model(network, description, options)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _write_openvino(network: LoadedNetwork, path: Path, description: Description, options: ExportOptions) -> None:
    from io import BytesIO

    ov = require("openvino")
    model = openvino_core().read_model(BytesIO(_onnx_model(network, description, options).SerializeToString()))
    model.set_rt_info(to_json(description), [KEY])
    ov.save_model(model, str(path), compress_to_fp16=False)


def plain(network: YOLOv4) -> YOLOv4:
    """A folded copy whose every part is torch's own, so that a program of it runs without this package."""
    folded = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    for path, block in list(folded.named_modules()):
        if isinstance(block, ConvBlock):
            act = nn.Mish() if block.activation_name == "mish" else block.act
            folded.set_submodule(path, nn.Sequential(fold_batch_norm(block.conv, block.bn), act))
    return folded.requires_grad_(False)


def _write_torchscript(network: LoadedNetwork, path: Path, description: Description, options: ExportOptions) -> None:
    size = description.image_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates TorchScript; runtimes still read it
        program = torch.jit.freeze(torch.jit.trace(plain(network.model), torch.zeros(1, 3, size, size)))
        program.save(str(path), _extra_files={f"{KEY}.json": to_json(description)})


def _write_torch_export(network: LoadedNetwork, path: Path, description: Description, options: ExportOptions) -> None:
    size, dim = description.image_size, torch.export.Dim
    shapes = None
    if options.dynamic:
        height, width = (32 * dim(f"{name}_cells", min=1, max=MOST_CELLS) for name in ("height", "width"))
        shapes = ({0: dim("batch", min=1, max=1024), 2: height, 3: width},)
    images = torch.zeros(2, 3, size, size + 32) if options.dynamic else torch.zeros(1, 3, size, size)
    program = torch.export.export(plain(network.model), (images,), dynamic_shapes=shapes)
    torch.export.save(program, path, extra_files={f"{KEY}.json": to_json(description)})


def _write_darknet(network: LoadedNetwork, path: Path, description: Description, options: ExportOptions) -> None:
    write_darknet(network, path.parent, path.stem, image_size=description.image_size)


Writer = Callable[[LoadedNetwork, Path, Description, ExportOptions], None]
WRITERS: dict[str, Writer] = {
    "onnx": _write_onnx,
    "openvino": _write_openvino,
    "torchscript": _write_torchscript,
    "torch_export": _write_torch_export,
    "darknet": _write_darknet,
}
