"""Hostile ONNX and OpenVINO files: a small exported network whose graph, weights and description are made odd."""

import json
import random
import tempfile
import xml.etree.ElementTree as ET
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from reference.mutations import ODD, mutated, scarred
from yolomish.config import parse_json
from yolomish.darknet.cfg import parse_cfg
from yolomish.darknet.network import config_of
from yolomish.inference.detector import Detector
from yolomish.inference.export.metadata import KEY
from yolomish.inference.export.write import WRITERS, ExportOptions, describe
from yolomish.networks import build_network
from yolomish.weights.load import LoadedNetwork

CONV = "[convolutional]\nbatch_normalize=1\nfilters=8\nsize=3\nstride={}\npad=1\nactivation=mish\n"
NETWORK = (
    "[net]\nwidth=32\nheight=32\nchannels=3\n"
    + CONV.format(2) * 3
    + CONV.format(1)
    + "[shortcut]\nfrom=-2\nactivation=linear\n[maxpool]\nsize=5\nstride=1\n[route]\nlayers=-1,-2\n"
    + CONV.format(2)
    + "[upsample]\nstride=2\n[route]\nlayers=-1,-3\n[convolutional]\nfilters=21\nsize=1\nactivation=linear\n"
    + "[yolo]\nmask=0,1,2\nanchors=10,14, 23,27, 37,58\nclasses=2\nnum=3\nscale_x_y=1.05\n"
)
NUMBERS = (-1, 0, 1, 2, 7, 64, 255, 2**15, 2**31 - 1, -(2**31), 2**62, -(2**63))
WORDS = ("", "x", "a\0b", "../../../etc/passwd", "/dev/zero", "images", "a" * 300, "ai.onnx.ml", "$x^{")


@cache
def exported(format: str) -> dict[str, bytes]:
    """The files of the network in a format, by suffix."""
    network = build_network(config_of(parse_cfg(NETWORK, "x.cfg").sections, "x")).eval()
    loaded = LoadedNetwork(network=network, names=("a", "b"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / ("input.onnx" if format == "onnx" else "input.xml")
        WRITERS[format](loaded, file, describe(loaded, size_hw=(32, 32), dynamic=True), ExportOptions())
        return {path.suffix: path.read_bytes() for path in Path(folder).iterdir()}


@cache
def _operators() -> tuple[str, ...]:
    import onnx

    return tuple(sorted({schema.name for schema in onnx.defs.get_all_schemas()}))


def _fields(message: Any) -> list[tuple[Any, Any]]:
    """Every field that is set, in the message and in those inside it, with the message that holds it."""
    found = []
    for field, value in message.ListFields():
        found.append((message, field))
        if field.type == field.TYPE_MESSAGE:
            for part in value if field.is_repeated else [value]:
                found += _fields(part)
    return found


def _odd(field: Any, value: Any, chance: random.Random) -> Any:
    if isinstance(value, bytes):
        return scarred(value, chance)
    if isinstance(value, str):
        words = _operators() if field.name == "op_type" else WORDS
        return chance.choice(words)
    if isinstance(value, float):
        return chance.choice((0.0, -1.0, 1e38, float("nan"), float("inf")))
    if field.type == field.TYPE_ENUM:
        return chance.choice(field.enum_type.values).number
    small = field.type == field.TYPE_INT32
    return chance.choice(NUMBERS[:9] if small else NUMBERS)


def _change(message: Any, field: Any, chance: random.Random) -> None:
    value = getattr(message, field.name)
    what = chance.randrange(8)
    if what == 0:
        message.ClearField(field.name)
    elif field.is_repeated:
        at = chance.randrange(len(value))
        if what == 1:
            del value[at]
        elif what == 2:
            value.append(value[at])
        elif what == 3 and field.type == field.TYPE_MESSAGE:
            value[at].CopyFrom(chance.choice(value))
        elif field.type != field.TYPE_MESSAGE:
            value[at] = chance.choice(value) if what == 4 else _odd(field, value[at], chance)
    elif field.type != field.TYPE_MESSAGE:
        setattr(message, field.name, _odd(field, value, chance))


def _describe(properties: Any, chance: random.Random) -> None:
    for entry in properties:
        if entry.key == KEY:
            entry.value = str(ODD) if chance.random() < 0.1 else _dumped(mutated(parse_json(entry.value, "it"), chance))


def _dumped(value: Any) -> str:
    return json.dumps(value).encode("utf-8", "replace").decode()


def _special(model: Any, chance: random.Random) -> None:
    """What mutations of one field seldom make: weights in other files, huge and endless graphs, a name that is its own input."""
    import onnx

    graph, what = model.graph, chance.randrange(6)
    node, weight = chance.choice(graph.node), chance.choice(graph.initializer)
    if what == 0:
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.ClearField("raw_data")
        for key, value in (("location", chance.choice(WORDS)), ("offset", str(chance.choice(NUMBERS))), ("length", "9" * 12)):
            entry = weight.external_data.add()
            entry.key, entry.value = key, value
    elif what == 1:
        shape = onnx.numpy_helper.from_array(np.array([chance.choice(NUMBERS)] * chance.randint(1, 5)), "big")
        graph.initializer.append(shape)
        graph.node.insert(0, onnx.helper.make_node("ConstantOfShape", ["big"], [chance.choice(graph.node).output[0] + "_"]))
    elif what == 2:
        node.input.extend(node.output)
    elif what == 3:
        del weight.dims[:]
        weight.dims.extend(chance.choice(NUMBERS) for _ in range(chance.randint(0, 5)))
    elif what == 4:
        inner = onnx.helper.make_graph([node], "inner", [], [])
        for _ in range(chance.choice((1, 30, 200))):
            inner = onnx.helper.make_graph([onnx.helper.make_node("If", ["c"], ["r"], then_branch=inner, else_branch=inner)]
                                           if inner.ByteSize() < 100_000 else [node], "inner", [], [])  # fmt: skip
        graph.node.append(onnx.helper.make_node("If", [node.output[0]], ["r"], then_branch=inner, else_branch=inner))
    else:
        _describe(model.metadata_props, chance)


def onnx_file(chance: random.Random) -> bytes:
    """An ONNX file with one to three faults in it."""
    import onnx

    content = exported("onnx")[".onnx"]
    if chance.random() < 0.2:
        return scarred(content, chance)
    model = onnx.load_model_from_string(content)
    for _ in range(chance.choice((1, 1, 2, 3))):
        if chance.random() < 0.3:
            _special(model, chance)
        else:
            _change(*chance.choice(_fields(model)), chance)
        if not model.graph.node or not model.graph.initializer:
            break
    return bytes(model.SerializeToString())


def xml_file(chance: random.Random) -> bytes:
    """An OpenVINO network (its .xml) with one to three faults in it."""
    content = exported("openvino")[".xml"]
    if chance.random() < 0.2:
        return scarred(content, chance)
    root = ET.fromstring(content)
    for _ in range(chance.choice((1, 1, 2, 3))):
        parts = [part for part in root.iter() if part.attrib or part.text]
        part, parent = chance.choice(parts), chance.choice([p for p in root.iter() if len(p)])
        what = chance.randrange(5)
        if what == 0:
            parent.remove(chance.choice(list(parent)))
        elif what == 1:
            parent.append(chance.choice(list(parent)))
        elif part.attrib:
            key = chance.choice(list(part.attrib))
            other = chance.choice([p.attrib[key] for p in parts if key in p.attrib])
            part.set(key, chance.choice((other, other, *map(str, NUMBERS), "", "x", "nan", "9" * 40, "1,,2", "-1,3,?,?")))
        else:
            part.text = chance.choice((*map(str, NUMBERS), "", "x", "9" * 40))
    return ET.tostring(root)


def run_exported(file: Path, engine: str) -> None:
    """Open a file as ``detect --weights`` does, and find objects in a picture of grey."""
    if file.suffix == ".xml":
        file.with_suffix(".bin").write_bytes(exported("openvino")[".bin"])
    Detector(file, engine=engine, device="cpu").detect(np.full((24, 31, 3), 127, np.uint8))
