"""What Darknet's sections do beside convolutions, each as a module of one or more maps (B, C, H, W).

A first input is the section before; sizes and the order of channels are Darknet's, read in the files named.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from yolomish.kernels import derived
from yolomish.nn.blocks import BN_EPSILON, Activated, concatenate, set_activation

WEIGHT_EPSILON = 1e-4  # src/blas.c shortcut_multilayer_cpu


class Shortcut(Activated):
    """The sum of maps, then an activation (src/shortcut_layer.c, src/blas.c shortcut_multilayer_cpu).

    The result has the first map's shape: another with fewer channels adds to the first of them, of one with more its first
    are added, and of one that is ``strides`` times as large every so many-th value (src/blas.c shortcut_cpu, with which
    resnet50.cfg was trained; shortcut_multilayer_cpu adds such maps' memory as it lies). With ``weights`` each map has one
    (``per_channel``: each of its channels), as they are, or normalised to a sum of 1 after ``relu`` or by ``softmax``.
    """

    weights: nn.Parameter | None

    def __init__(
        self,
        channels: tuple[int, ...],
        strides: tuple[int, ...],
        *,
        activation: str,
        weighted: str = "none",
        normalisation: str = "none",
    ) -> None:
        super().__init__()
        self.channels, self.strides = channels, strides
        self.normalisation = normalisation
        shape = len(channels), channels[0] if weighted == "per_channel" else 1
        self.register_parameter("weights", None if weighted == "none" else nn.Parameter(torch.ones(shape)))
        self.act_channels = channels[0]
        set_activation(self, activation)

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        if self.weights is None and set(self.channels) == {self.channels[0]} and set(self.strides) == {1}:
            for other in others:
                x = derived(torch.add, x, other)
        else:
            x = self._weighted(x, others)
        return x if self.activation_name == "linear" else self.act(x)

    def _weighted(self, x: Tensor, others: tuple[Tensor, ...]) -> Tensor:
        weights = self.normalised()
        c = self.channels[0]
        if weights is not None:
            x = x * weights[0]
        for i, (other, channels, stride) in enumerate(zip(others, self.channels[1:], self.strides[1:], strict=True), 1):
            other = other[:, :c, ::stride, ::stride]
            if weights is not None:
                other = other * weights[i][: min(c, channels)]
            if channels < c:
                other = F.pad(other, (0, 0, 0, 0, 0, c - channels))
            x = x + other
        return x

    def normalised(self) -> Tensor | None:
        """The weights as they are applied, (maps, C or 1, 1, 1)."""
        if self.weights is None:
            return None
        weights: Tensor = self.weights
        if self.normalisation != "none":
            if self.normalisation == "softmax":
                weights = (weights - weights.amax(0)).exp()
            else:
                weights = weights.relu()
            weights = weights / (weights.sum(0) + WEIGHT_EPSILON)
        return weights[:, :, None, None]


class Route(nn.Module):
    """Maps beside each other in channels; of each the ``group``-th of ``groups`` equal shares (src/route_layer.c)."""

    def __init__(self, channels: tuple[int, ...], groups: int = 1, group: int = 0) -> None:
        super().__init__()
        self.shares = tuple((c // groups * group, c // groups * (group + 1)) for c in channels)
        self.groups, self.group = groups, group

    def forward(self, *maps: Tensor) -> Tensor:
        if self.groups > 1:
            maps = tuple(x[:, start:end] for x, (start, end) in zip(maps, self.shares, strict=True))
        return maps[0] if len(maps) == 1 else concatenate(*maps)


class Pool(nn.Module):
    """Max pooling (src/maxpool_layer.c): ``padding`` is the sum of both sides, the smaller half before.

    The result is (side + padding - size) // stride + 1, what lies outside never counts.
    """

    def __init__(self, size: int, stride: tuple[int, int], padding: int) -> None:
        super().__init__()
        self.size, self.stride = size, stride
        self.before, self.after = padding // 2, padding - padding // 2

    def forward(self, x: Tensor) -> Tensor:
        before, after = self.before, self.after
        if 2 * before <= self.size:
            if before == after:
                return F.max_pool2d(x, self.size, self.stride, before)
            if self.stride == (2, 2):  # one more behind is what rounding up adds
                return F.max_pool2d(x, self.size, self.stride, before, ceil_mode=True)
        x = F.pad(x, (before, after, before, after), value=float("-inf"))
        return F.max_pool2d(x, self.size, self.stride)


class DepthPool(nn.Module):
    """The maximum over every ``c_out``-th channel (src/maxpool_layer.c, maxpool_depth): (B, C, H, W) -> (B, c_out, H, W)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.c_in, self.c_out = c_in, c_out

    def forward(self, x: Tensor) -> Tensor:
        if missing := -self.c_in % self.c_out:
            x = F.pad(x, (0, 0, 0, 0, 0, missing), value=float("-inf"))
        return x.unflatten(1, (-1, self.c_out)).amax(1)


class LocalAverage(nn.Module):
    """Means of windows, of the values inside the map alone (src/maxpool_layer.c forward_local_avgpool_layer)."""

    def __init__(self, size: int, stride: tuple[int, int], padding: int) -> None:
        super().__init__()
        self.size, self.stride = size, stride
        self.pad = (padding // 2, padding - padding // 2) * 2

    def forward(self, x: Tensor) -> Tensor:
        total = F.avg_pool2d(F.pad(x, self.pad), self.size, self.stride)
        if not any(self.pad):
            return total
        inside = F.avg_pool2d(F.pad(torch.ones_like(x[:1, :1]), self.pad), self.size, self.stride)
        return total / inside


class Blur(nn.Module):
    """A binomial blur of each channel by 3 (or 2) px, then every ``stride``-th value: what antialiasing adds to a section.

    src/convolutional_layer.c make_convolutional_layer: zeros outside, none by 2 px.
    """

    def __init__(self, channels: int, size: int, stride: tuple[int, int]) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0] if size == 3 else [1.0, 1.0])
        kernel = line[:, None] * line / line.sum() ** 2
        self.register_buffer("kernel", kernel.expand(channels, 1, size, size).contiguous(), persistent=False)
        self.kernel: Tensor
        self.stride, self.padding = stride, 1 if size == 3 else 0

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, None, self.stride, self.padding, 1, x.shape[1])


class Upsample(nn.Module):
    """``stride`` times the size, each value repeated, times ``scale`` (src/blas.c upsample_cpu)."""

    def __init__(self, stride: int, scale: float = 1.0) -> None:
        super().__init__()
        self.stride, self.scale = stride, scale

    def forward(self, x: Tensor) -> Tensor:
        x = derived(lambda small: F.interpolate(small, scale_factor=float(self.stride)), x)
        return x if self.scale == 1 else x * self.scale


class Downsample(nn.Module):
    """The sums of ``stride`` x ``stride`` cells, times ``scale``: an [upsample] of negative stride (src/blas.c upsample_cpu)."""

    def __init__(self, stride: int, scale: float = 1.0) -> None:
        super().__init__()
        self.stride, self.scale = stride, scale

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.stride) * (self.scale * self.stride**2)


class Reorg(nn.Module):
    """Cells of ``stride`` x ``stride`` px as channels, the place in the cell before the channel (src/blas.c reorg_cpu).

    ``flat`` is the older [reorg]: it takes the memory of the input as one of fewer channels and a larger map.
    """

    def __init__(self, stride: int, *, flat: bool) -> None:
        super().__init__()
        self.stride, self.flat = stride, flat

    def forward(self, x: Tensor) -> Tensor:
        s = self.stride
        b, c, h, w = x.shape
        if self.flat:
            x = x.reshape(b, c // (s * s), h, s, w, s)
            return x.permute(0, 3, 5, 1, 2, 4).reshape(b, c * s * s, h // s, w // s)
        x = x.reshape(b, c, h // s, s, w // s, s)
        return x.permute(0, 3, 5, 1, 2, 4).reshape(b, c * s * s, h // s, w // s)


class Product(Activated):
    """A map times another, where one may be (B, C, 1, 1) or (B, 1, H, W), then an activation: [scale_channels] and [sam]."""

    def __init__(self, channels: int, *, activation: str) -> None:
        super().__init__()
        self.act_channels = channels
        set_activation(self, activation)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        x = other * x
        return x if self.activation_name == "linear" else self.act(x)


class Average(nn.Module):
    """The mean of each channel, (B, C, 1, 1) (src/avgpool_layer.c)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, 1)


class Applied(Activated):
    """An activation alone ([activation])."""

    def __init__(self, channels: int, *, activation: str) -> None:
        super().__init__()
        self.act_channels = channels
        set_activation(self, activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x)


class Connected(Activated):
    """Every value of a map with each output, batch norm or bias, activation: (B, C, H, W) -> (B, outputs, 1, 1)."""

    def __init__(self, inputs: int, outputs: int, *, norm: bool, activation: str) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=not norm)
        self.bn = nn.BatchNorm1d(outputs, eps=BN_EPSILON) if norm else None
        self.act_channels = outputs
        set_activation(self, activation)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x.flatten(1))
        x = x if self.bn is None else self.bn(x)
        return self.act(x)[..., None, None]


class Logits(nn.Module):
    """A map (B, C, H, W) as one row per image over ``temperature``, whose softmax the classes are (src/softmax_layer.c)."""

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return x if self.temperature == 1 else x / self.temperature
