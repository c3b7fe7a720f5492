"""Looks at ONNX and OpenVINO files before their makers' libraries do, which hang, crash or fill the memory on some."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from math import prod
from pathlib import Path

from yolomish.errors import YolomishError, first_line, shown
from yolomish.inference.export.metadata import KEY, Description, from_json
from yolomish.inference.export.packages import require

MOST_IR_BYTES = 100_000_000
MOST_OPSET = 1000  # onnx's checker counts down from what a file says, for hours
MOST_VALUES = 2**29  # of one map for one image: 32 channels at 4096 px
CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")  # may never end, and hide what is in them
SMALL = 1024  # bytes of a tensor that may say a shape or a scale


def check_onnx(path: Path) -> Description:
    """What an ONNX file says of itself; YolomishError where onnx's checker refuses it, it has control flow or returns boxes, or
    one image of its own size would make a map of more than ``MOST_VALUES``, or of any size. On a damaged file onnx raises
    errors of its own kinds."""
    onnx = require("onnx")
    model = onnx.load(path, load_external_data=False)
    for opset in (*model.opset_import, *(opset for function in model.functions for opset in function.opset_import)):
        if not 0 < opset.version <= MOST_OPSET:
            raise YolomishError(f"{path} needs opset {opset.version} of {opset.domain or 'ai.onnx'!r}, which there is not")
    onnx.checker.check_model(os.fspath(path))
    if model.functions:
        model = require("onnx.inliner").inline_local_functions(model)
    if found := sorted({node.op_type for node in model.graph.node} & set(CONTROL_FLOW)):
        raise YolomishError(f"{path} has control flow ({', '.join(found)}), which no network here needs")
    description = from_json(next((p.value for p in model.metadata_props if p.key == KEY), ""), path)
    if description.nms:
        raise YolomishError(f"{path} was exported with --nms: it returns boxes to your own program; export without it for detect")
    for weight in model.graph.initializer:
        if weight.ByteSize() > SMALL:
            weight.ClearField("raw_data")  # shapes are inferred without, and much faster
    for given in model.graph.input:
        dims, sizes = given.type.tensor_type.shape.dim, (1, description.input.channels, *description.input.size_hw)
        if len(dims) == len(sizes):
            for dim, size in zip(dims, sizes, strict=True):
                dim.dim_value = size
    for given in (*model.graph.value_info, *model.graph.output):
        given.type.tensor_type.ClearField("shape")  # of no use, and untrue at this size
    known = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    maps = {value.name: value.type.tensor_type.shape.dim for value in (*known.value_info, *known.input, *known.output)}
    for name in [*(given.name for given in known.input), *(name for node in known.node for name in node.output if name)]:
        dims = maps.get(name)
        if dims is None or any(not dim.HasField("dim_value") for dim in dims):
            raise YolomishError(f"{path} makes a map {shown(name)} whose size onnx cannot tell, so that it may be of any")
        shape = [dim.dim_value for dim in dims]
        if prod(shape) > MOST_VALUES:
            raise YolomishError(f"{path} makes a map {shown(name)} of size {shown(shape)}, more than {MOST_VALUES:,} values")
    return description


def check_ir(path: Path) -> None:
    """YolomishError where OpenVINO's own reader should not see the .xml: it is no XML, or its weights go past the .bin's end."""
    if path.stat().st_size > MOST_IR_BYTES:
        raise YolomishError(f"{path} has {path.stat().st_size:,} bytes, more than a network's description ({MOST_IR_BYTES:,})")
    try:
        net = ET.parse(path).getroot()
    except (ET.ParseError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise YolomishError(f"{path} is no XML: {first_line(error)}") from None
    if net.tag != "net":
        raise YolomishError(f"{path} is no OpenVINO network: it is a <{first_line(net.tag)}>")
    weights = path.with_suffix(".bin")
    held = weights.stat().st_size if weights.is_file() else 0
    for data in net.iterfind("layers/layer/data[@offset]"):
        place = data.get("offset", ""), data.get("size", "")
        if not all(text.isascii() and text.isdigit() and len(text) < 19 for text in place) or sum(map(int, place)) > held:
            raise YolomishError(f"{path} takes bytes {shown(place)} (offset, size) of {weights.name}, which holds {held:,}")
