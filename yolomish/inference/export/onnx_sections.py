"""The sections of a Darknet graph beside convolutions as ONNX nodes, each as in ``nn.sections``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from yolomish.errors import YolomishError
from yolomish.nn import sections as parts
from yolomish.nn.blocks import Activated


class Nodes:
    """What a graph under construction offers here: every method returns the name of its result."""

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        raise NotImplementedError

    def constant(self, name: str, value: torch.Tensor) -> str:
        raise NotImplementedError

    def activate(self, name: str, block: Activated, x: str) -> str:
        raise NotImplementedError

    def integers(self, *values: int) -> str:
        """An int64 vector."""
        return self.constant("integers_" + "_".join(map(str, values)), torch.tensor(values))

    def slice(self, x: str, axis: int, start: int, end: int, step: int = 1) -> str:
        """x[start:end:step] along an axis."""
        return self.node("Slice", [x, *(self.integers(v) for v in (start, end, axis, step))])

    def stepped(self, x: str, step: int, y: int = 0, x0: int = 0) -> str:
        """x[:, :, y::step, x0::step]."""
        return self.slice(self.slice(x, 2, y, 1 << 30, step), 3, x0, 1 << 30, step)

    def times(self, x: str, factor: float) -> str:
        """x · factor."""
        return x if factor == 1 else self.node("Mul", [x, self.constant(f"constant_{factor:g}", torch.tensor(factor))])

    def upsample(self, x: str, factor: int) -> str:
        """Each value ``factor`` x ``factor`` times."""
        scales = self.constant(f"times_{factor}", torch.tensor([1.0, 1.0, factor, factor]))
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.node("Resize", [x, "", scales], **how)


def _shortcut(graph: Nodes, name: str, module: parts.Shortcut, x: str, *others: str) -> str:
    weights, c = module.normalised(), module.channels[0]
    if weights is not None:
        x = graph.node("Mul", [x, graph.constant(f"{name}.weight0", weights[0])])
    for i, (other, channels, stride) in enumerate(zip(others, module.channels[1:], module.strides[1:], strict=True), 1):
        if channels > c:
            other = graph.slice(other, 1, 0, c)
        if stride > 1:
            other = graph.stepped(other, stride)
        if weights is not None:
            other = graph.node("Mul", [other, graph.constant(f"{name}.weight{i}", weights[i][: min(c, channels)])])
        if channels < c:
            other = graph.node("Pad", [other, graph.integers(0, 0, 0, 0, 0, c - channels, 0, 0)])
        x = graph.node("Add", [x, other])
    return x if module.activation_name == "linear" else graph.activate(name, module, x)


def _route(graph: Nodes, name: str, module: parts.Route, *maps: str) -> str:
    if module.groups > 1:
        maps = tuple(graph.slice(x, 1, start, end) for x, (start, end) in zip(maps, module.shares, strict=True))
    return maps[0] if len(maps) == 1 else graph.node("Concat", maps, axis=1)


def _pool(graph: Nodes, name: str, module: parts.Pool, x: str) -> str:
    pads, size = [module.before] * 2 + [module.after] * 2, [module.size] * 2
    if max(pads) >= module.size:
        raise YolomishError(f"{name} pads more than its window of {module.size}: that has no ONNX form")
    return graph.node("MaxPool", [x], kernel_shape=size, strides=list(module.stride), pads=pads)


def _depth_pool(graph: Nodes, name: str, module: parts.DepthPool, x: str) -> str:
    c = module.c_in
    shares = [[g + k if g + k < c else g for g in range(module.c_out)] for k in range(0, c, module.c_out)]
    taken = [graph.node("Gather", [x, graph.integers(*share)], axis=1) for share in shares]
    return taken[0] if len(taken) == 1 else graph.node("Max", taken)


def _local_average(graph: Nodes, name: str, module: parts.LocalAverage, x: str) -> str:
    before, after = module.pad[:2]
    pads = [before, before, after, after]
    return graph.node("AveragePool", [x], kernel_shape=[module.size] * 2, strides=list(module.stride), pads=pads)


def _blur(graph: Nodes, name: str, module: parts.Blur, x: str) -> str:
    kernel = graph.constant(f"{name}.kernel", module.kernel)
    pads, groups = [module.padding] * 4, module.kernel.shape[0]
    return graph.node(
        "Conv", [x, kernel], kernel_shape=list(module.kernel.shape[2:]), strides=list(module.stride), pads=pads, group=groups
    )


def _upsample(graph: Nodes, name: str, module: parts.Upsample, x: str) -> str:
    return graph.times(graph.upsample(x, module.stride), module.scale)


def _downsample(graph: Nodes, name: str, module: parts.Downsample, x: str) -> str:
    s = module.stride
    return graph.times(graph.node("AveragePool", [x], kernel_shape=[s, s], strides=[s, s]), module.scale * s * s)


def _reorg(graph: Nodes, name: str, module: parts.Reorg, x: str) -> str:
    if module.flat:
        raise YolomishError(f"{name} is a [reorg], which has no ONNX form")
    places = [(y, x0) for y in range(module.stride) for x0 in range(module.stride)]
    cells = [graph.stepped(x, module.stride, y, x0) for y, x0 in places]  # OpenVINO cannot infer SpaceToDepth of open sizes
    return graph.node("Concat", cells, axis=1)


def _product(graph: Nodes, name: str, module: parts.Product, x: str, other: str) -> str:
    x = graph.node("Mul", [other, x])
    return x if module.activation_name == "linear" else graph.activate(name, module, x)


def _average(graph: Nodes, name: str, module: parts.Average, x: str) -> str:
    return graph.node("GlobalAveragePool", [x])


def _applied(graph: Nodes, name: str, module: parts.Applied, x: str) -> str:
    return graph.activate(name, module, x)


def _same(graph: Nodes, name: str, module: nn.Module, x: str) -> str:
    return x


def _norm(graph: Nodes, name: str, module: nn.BatchNorm2d, x: str) -> str:
    values = {"scale": module.weight, "bias": module.bias, "mean": module.running_mean, "variance": module.running_var}
    constants = [graph.constant(f"{name}.{key}", value) for key, value in values.items() if value is not None]
    return graph.node("BatchNormalization", [x, *constants], epsilon=module.eps)


SECTIONS: dict[type[nn.Module], Callable[..., str]] = {
    parts.Shortcut: _shortcut,
    parts.Route: _route,
    parts.Pool: _pool,
    parts.DepthPool: _depth_pool,
    parts.LocalAverage: _local_average,
    parts.Blur: _blur,
    parts.Upsample: _upsample,
    parts.Downsample: _downsample,
    parts.Reorg: _reorg,
    parts.Product: _product,
    parts.Average: _average,
    parts.Applied: _applied,
    nn.Dropout: _same,
    nn.Identity: _same,
    nn.BatchNorm2d: _norm,
}
