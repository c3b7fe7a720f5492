"""``yolomish export``: write a network for another runtime, and only what has returned torch's own numbers."""

from __future__ import annotations

import copy
import io
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
from torch.fx.experimental import _config as symbolic_shapes

from yolomish.errors import YolomishError, first_line, unknown_name
from yolomish.files import make_folder, partial_name, reason, refuse_existing, shown_path
from yolomish.inference.engines.exported import open_exported
from yolomish.inference.engines.openvino_engine import openvino_core
from yolomish.inference.export.darknet_check import check_darknet
from yolomish.inference.export.metadata import KEY, Description, describe, to_json
from yolomish.inference.export.onnx_graph import MISH_OPSET, write_graph
from yolomish.inference.export.onnx_nms import add_nms
from yolomish.inference.export.packages import installed, require
from yolomish.inference.export.verify import Agreement, check_nms, compare, probe_images
from yolomish.networks import Network
from yolomish.nn.blocks import Activated, ConvBlock
from yolomish.nn.fold import folded_convolution
from yolomish.trust import trust_file
from yolomish.types import SizeHW
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
MOST_CELLS = 512  # torch.export bounds a side, in strides


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


def target_files(output: Path, format: str) -> tuple[Path, ...]:
    """The files that an export to ``output``, any one of them, writes, the one that is opened first; YolomishError for a
    suffix of another format."""
    if output.suffix not in SUFFIXES[format]:
        raise YolomishError(f"a file of format {format} must end in {' or '.join(SUFFIXES[format])}, not {output.name!r}")
    return tuple(output.with_suffix(suffix) for suffix in SUFFIXES[format])


def format_of(file: Path) -> str:
    """The format whose files end as ``file`` does."""
    return next(name for name, suffixes in SUFFIXES.items() if file.suffix in suffixes)


def export_network(
    loaded: LoadedNetwork,
    output: str | Path,
    format: str,
    *,
    image: np.ndarray,
    size_hw: SizeHW,
    options: ExportOptions,
    force: bool = False,
) -> Exported:
    """Write a network as ``format`` (a key of ``SUFFIXES``) to ``output`` and its siblings, verified on ``image``.

    ``image`` is (H, W, 3) uint8 RGB, ``size_hw`` the network's size in px. The files are made in a folder beside, read
    back, compared with the torch network and only then moved into place. YolomishError where they differ from it by more
    than ``verify.TOLERANCE``, a package is missing or the format cannot hold the network; nothing is then changed. Nor is a
    file that is there already, unless by ``force``. A program that was written so is trusted from then on.
    """
    if format not in SUFFIXES:
        raise unknown_name("export format", format, SUFFIXES)
    if options.nms and format != "onnx":
        raise YolomishError(f"--nms is for onnx alone, not {format}: our engines do it by themselves")
    files = target_files(Path(output), format)
    output = files[0]
    refuse_existing(files, force)
    network = loaded.network
    network.input.check_size(size_hw)
    description = describe(loaded, size_hw=size_hw, dynamic=options.dynamic, nms=options.nms)
    probes = probe_images(network, image, size_hw=size_hw, dynamic=options.dynamic and format != "darknet")
    make_folder(output.parent)
    try:
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=partial_name(output)) as folder:
            partial = Path(folder) / output.name
            WRITERS[format](loaded, partial, description, options)
            if format == "darknet":
                agreement = check_darknet(network, partial, probes[0])
            elif options.nms:
                agreement = check_nms(network, partial, probes, options.conf, options.iou, options.max_det)
            else:
                if format in ("torchscript", "torch_export"):
                    trust_file(partial)  # a program of our own making
                engine, _ = open_exported(partial, engine=_checker(format), device=torch.device("cpu"))
                agreement = compare(network, engine, probes, f"the {format} file")
            refuse_existing(files, force)
            for file in reversed(files):  # the file that is opened comes last
                os.replace(partial.with_suffix(file.suffix), file)
    except OSError as error:
        raise YolomishError(f"{shown_path(output)} cannot be written: {reason(error)}; what was there is intact") from None
    return Exported(files=files, agreement=agreement)


def _checker(format: str) -> str:
    if format != "onnx":
        return "auto"
    return "onnxruntime" if installed("onnxruntime") or not installed("openvino") else "openvino"


def _onnx_model(loaded: LoadedNetwork, description: Description, options: ExportOptions) -> onnx.ModelProto:
    model = write_graph(
        loaded.network,
        opset=options.opset,
        elementary=options.elementary,
        dynamic=options.dynamic,
        size_hw=description.input.size_hw,
    )
    if options.nms:
        add_nms(model, description.heads, conf=options.conf, iou=options.iou, max_det=options.max_det)
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, to_json(description)
    return model


def _write_onnx(loaded: LoadedNetwork, path: Path, description: Description, options: ExportOptions) -> None:
    onnx = require("onnx")
    model = _onnx_model(loaded, description, options)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _write_openvino(loaded: LoadedNetwork, path: Path, description: Description, options: ExportOptions) -> None:
    from io import BytesIO

    ov = require("openvino")
    model = openvino_core().read_model(BytesIO(_onnx_model(loaded, description, options).SerializeToString()))
    model.set_rt_info(to_json(description), [KEY])
    try:
        ov.save_model(model, str(path), compress_to_fp16=False)
    except RuntimeError as error:
        raise YolomishError(f"OpenVINO cannot write {path.name}: {first_line(error)}; is the disk full?") from None


def plain(network: Network) -> Network:
    """A folded copy whose every part is torch's own, so that a program of it runs without this package."""
    folded = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    for path, block in list(folded.named_modules()):
        if isinstance(block, Activated):
            act = nn.Mish() if block.activation_name == "mish" else block.act
            if isinstance(block, ConvBlock):
                folded.set_submodule(path, nn.Sequential(folded_convolution(block), act))
            else:
                block.act = act
    return folded.requires_grad_(False)


def _write_torchscript(loaded: LoadedNetwork, path: Path, description: Description, options: ExportOptions) -> None:
    images = torch.zeros(1, description.input.channels, *description.input.size_hw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates TorchScript; runtimes still read it
        program = torch.jit.freeze(torch.jit.trace(plain(loaded.network), images))
        content = io.BytesIO()  # torch's own writer aborts the process on a full disk
        torch.jit.save(program, content, _extra_files={f"{KEY}.json": to_json(description)})
    path.write_bytes(content.getbuffer())


def _write_torch_export(loaded: LoadedNetwork, path: Path, description: Description, options: ExportOptions) -> None:
    spec, dim = description.input, torch.export.Dim
    height, width = spec.size_hw
    images: torch.Tensor = torch.zeros(1, spec.channels, height, width)
    shapes = None
    if options.dynamic:
        cells = (spec.stride * dim(f"{name}_cells", min=1, max=MOST_CELLS) for name in ("height", "width"))
        shapes = ({0: dim("batch", min=1, max=1024), **dict(zip((2, 3), cells, strict=True))},)
        images = torch.zeros(2, spec.channels, 3 * spec.stride, 4 * spec.stride)  # sides of one cell would be taken as fixed
    # otherwise newer torch versions refuse maps of one cell in the program, which computes them right
    whole = {"backed_size_oblivious": True} if hasattr(symbolic_shapes, "backed_size_oblivious") else {}
    with symbolic_shapes.patch(whole):  # type: ignore[attr-defined]
        program = torch.export.export(plain(loaded.network), (images,), dynamic_shapes=shapes)
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={f"{KEY}.json": to_json(description)})
    path.write_bytes(content.getbuffer())


def _write_darknet(loaded: LoadedNetwork, path: Path, description: Description, options: ExportOptions) -> None:
    write_darknet(loaded, path.parent, path.stem, size_hw=description.input.size_hw)


Writer = Callable[[LoadedNetwork, Path, Description, ExportOptions], None]
WRITERS: dict[str, Writer] = {
    "onnx": _write_onnx,
    "openvino": _write_openvino,
    "torchscript": _write_torchscript,
    "torch_export": _write_torch_export,
    "darknet": _write_darknet,
}
