"""A network as an ONNX graph, batch norms folded: a node for a node, so that it takes a second and needs only ``onnx``.

Activations that ONNX does not know are traced by ``torch.onnx`` alone and put in wherever they stand.
"""

from __future__ import annotations

import operator
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from yolomish.activations import OnnxForm, find_activation
from yolomish.errors import YolomishError, first_line
from yolomish.inference.export.onnx_sections import SECTIONS, Nodes
from yolomish.inference.export.packages import require
from yolomish.networks import Network
from yolomish.nn.blocks import Activated, ConvBlock
from yolomish.nn.fold import folded_convolution
from yolomish.types import HeadSpec, SizeHW

if TYPE_CHECKING:
    import onnx

INPUT = "images"
MISH_OPSET = 18  # the first opset with the Mish operator
TRACED_OPSET = 18  # what torch.onnx traces at: it leaves this opset's operators in a file of an older one


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (ConvBlock, nn.Conv2d, *SECTIONS))


class _Graph(Nodes):
    """Nodes and initializers under construction; every method returns the name of its result."""

    def __init__(self, opset: int, elementary: bool) -> None:
        self.onnx = require("onnx")
        self.opset, self.elementary = opset, elementary
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.traced: dict[str, onnx.GraphProto] = {}

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [output], name=f"node_{output}", **attributes))
        return output

    def constant(self, name: str, value: Tensor) -> str:
        if all(i.name != name for i in self.initializers):
            self.initializers.append(self.onnx.numpy_helper.from_array(value.detach().cpu().contiguous().numpy(), name))
        return name

    def convolution(self, name: str, conv: nn.Conv2d, x: str) -> str:
        assert conv.bias is not None
        weights = [self.constant(f"{name}.weight", conv.weight), self.constant(f"{name}.bias", conv.bias)]
        padding = [int(p) for p in conv.padding]
        how: dict[str, Any] = {"kernel_shape": conv.kernel_size, "strides": conv.stride, "pads": padding * 2}
        if conv.groups > 1 or conv.dilation != (1, 1):
            how |= {"group": conv.groups, "dilations": conv.dilation}
        return self.node("Conv", [x, *weights], **how)

    def block(self, name: str, block: ConvBlock, x: str) -> str:
        conv, kind = folded_convolution(block), block.activation_name
        if kind == "mish" and self.elementary:
            with torch.no_grad():
                conv.weight.neg_()
                conv.bias.neg_()  # type: ignore[union-attr]
            return self.mish_of_negative(self.convolution(name, conv, x))
        return self.activate(name, block, self.convolution(name, conv, x))

    def activate(self, name: str, block: Activated, x: str) -> str:
        """The activation of the block called ``name``."""
        kind = block.activation_name
        if kind == "mish" and self.elementary:
            return self.mish_of_negative(self.node("Neg", [x]))
        form = find_activation(kind).onnx
        if form is not None and form.opset <= self.opset:
            return self.activation(name, form, block.act, x)
        if form is not None and form.opset <= TRACED_OPSET:
            way_out = f"use --opset {form.opset} or higher" + (", or --elementary" if kind == "mish" else "")
            raise YolomishError(f"opset {self.opset} has no {form.operator} operator: {way_out}")
        return self.inline(name if any(True for _ in block.act.parameters()) else kind, block.act, x)

    def activation(self, name: str, form: OnnxForm, act: nn.Module, x: str) -> str:
        """An activation that ONNX has an operator for, of the block ``name``."""
        inputs = [self.constant(f"constant_{value:g}", torch.tensor(value)) for value in form.constants]
        inputs += [self.constant(f"{name}.act.{key}", value.view(-1, 1, 1)) for key, value in act.named_parameters()]
        result = self.node(form.operator, [x, *inputs], **form.attributes)
        return self.node("Mul", [x, result]) if form.times_input else result

    def mish_of_negative(self, z: str) -> str:
        """Mish of -z as z - z / ((1 + t²) / 2) with t = σ(z), which no value overflows; the convolution computes z at no cost.

        Of a dozen forms the fewest passes over memory in ONNX Runtime, whose Mish is a scalar softplus and tanh.
        """
        t = self.node("Sigmoid", [z])
        half = self.node("HardSigmoid", [self.node("Mul", [t, t])], alpha=0.5, beta=0.5)
        return self.node("Sub", [z, self.node("Div", [z, half])])

    def inline(self, key: str, act: nn.Module, x: str) -> str:
        """The nodes of any elementwise module; traced once for each ``key``."""
        if key not in self.traced:
            self.traced[key] = _trace(act, self.opset)
        graph, prefix = self.traced[key], f"n{len(self.nodes)}."
        names = {graph.input[0].name: x, "": ""}
        for tensor in graph.initializer:
            names[tensor.name] = f"{key}:{tensor.name}"
            if all(i.name != names[tensor.name] for i in self.initializers):
                copy = self.onnx.TensorProto()
                copy.CopyFrom(tensor)
                copy.name = names[tensor.name]
                self.initializers.append(copy)
        for node in graph.node:
            names |= {output: prefix + output for output in node.output if output}
            copied = self.onnx.NodeProto()
            copied.CopyFrom(node)
            copied.name = f"{prefix}{node.name}"
            copied.input[:] = [names[i] for i in node.input]
            copied.output[:] = [names[o] for o in node.output]
            self.nodes.append(copied)
        return names[graph.output[0].name]


def _trace(act: nn.Module, opset: int) -> onnx.GraphProto:
    """The ONNX graph of one activation, by torch's own exporter."""
    onnx = require("onnx")
    require("onnxscript")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "activation.onnx"
        channels = next((p.numel() for p in act.parameters() if p.numel() > 1), 8)
        try:
            torch.onnx.export(act, (torch.randn(2, channels, 4, 6),), str(file), opset_version=opset, dynamo=True, verbose=False)
        except Exception as error:  # torch.onnx raises many kinds
            raise YolomishError(f"activation {act} cannot be written as ONNX: {first_line(error)}") from None
        return onnx.load(file).graph


def output_names(heads: Sequence[HeadSpec]) -> tuple[str, ...]:
    """What the raw maps are called: ``stride8``, ...; a stride that comes again is numbered."""
    names: list[str] = []
    for head in heads:
        same = sum(name.startswith(f"stride{head.stride}") for name in names)
        names.append(f"stride{head.stride}" + (f"_{same + 1}" if same else ""))
    return tuple(names)


def write_graph(
    network: Network,
    *,
    opset: int = MISH_OPSET,
    elementary: bool = False,
    dynamic: bool = True,
    size_hw: SizeHW | None = None,
) -> onnx.ModelProto:
    """``network`` as an ONNX model: ``images`` (B, C, H, W) as its input says -> raw maps, see ``output_names``.

    ``dynamic`` leaves batch, height and width open (whole strides), else they are 1 and ``size_hw`` px (None: the
    network's own). Mish is ONNX's operator, or with ``elementary`` operators that any opset and runtime has. YolomishError
    where the opset is too old for that.
    """
    onnx = require("onnx")
    if not network.heads:
        raise YolomishError(f"{network.name} is a classifier: detectors are written as ONNX")
    newest = onnx.defs.onnx_opset_version()
    if not 13 <= opset <= newest:
        raise YolomishError(f"opset must be 13 to {newest} with onnx {onnx.__version__}, not {opset}")
    graph = _Graph(opset, elementary)
    values: dict[str, Any] = {}
    traced = _Tracer().trace(network)
    for node in traced.nodes:
        x = fx.node.map_arg(node.args, lambda n: values[n.name])
        if node.op == "placeholder":
            values[node.name] = INPUT
        elif node.op == "call_module":
            target, module = str(node.target), network.get_submodule(str(node.target))
            if isinstance(module, ConvBlock):
                values[node.name] = graph.block(target, module, x[0])
            elif isinstance(module, nn.Conv2d):
                values[node.name] = graph.convolution(target, module, x[0])
            else:
                values[node.name] = SECTIONS[type(module)](graph, target, module, *x)
        elif node.op == "output":
            results = x[0]
        elif node.target in (operator.add, torch.add):
            values[node.name] = graph.node("Add", x)
        elif node.target is torch.cat:
            values[node.name] = graph.node("Concat", x[0], axis=1)
        elif node.target is F.interpolate:
            values[node.name] = graph.upsample(x[0], 2)
        elif node.target is F.max_pool2d:
            k, pad = x[1], node.kwargs["padding"]
            values[node.name] = graph.node("MaxPool", [x[0]], kernel_shape=[k, k], strides=[1, 1], pads=[pad] * 4)
        else:
            raise NotImplementedError(f"{node.op} {node.target} has no ONNX form here")
    names = output_names(network.heads)
    for result, name in zip(results, names, strict=True):
        next(n for n in graph.nodes if n.output[0] == result).output[0] = name
    height, width = size_hw or network.input.size_hw
    channels = network.input.channels
    shape = ["batch", channels, "height", "width"] if dynamic else [1, channels, height, width]
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    outputs = []
    for name, head in zip(names, network.heads, strict=True):
        cells = [f"rows{head.stride}", f"columns{head.stride}"] if dynamic else [height // head.stride, width // head.stride]
        values_per_cell = len(head.anchors) * (5 + head.num_classes)
        outputs.append(helper.make_tensor_value_info(name, kind, [shape[0], values_per_cell, *cells]))
    inputs = [helper.make_tensor_value_info(INPUT, kind, shape)]
    made = helper.make_graph(graph.nodes, network.name, inputs, outputs, graph.initializers)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(made, opset_imports=opsets, ir_version=min(onnx.IR_VERSION, 10), producer_name="yolomish")
