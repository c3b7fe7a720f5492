"""The blocks that the YOLOv4 family is built of: convolution + BN + activation, residual units, cross-stage-partial ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from yolomish.activations import find_activation
from yolomish.kernels import derived, norm_act

OBJECTNESS_PRIOR = 0.01
BN_EPSILON = 1e-5  # Darknet src/batchnorm_layer.c, cuDNN path and network.c fuse_conv_batchnorm


class Activated(nn.Module):
    """A block that ends in an activation. ``fixed``: it belongs to the structure (a linear bottleneck, a gate), not to swap."""

    act: nn.Module
    act_channels: int  # of the map that the activation takes
    activation_name: str  # never an alias
    fixed: bool = False


def set_activation(block: Activated, activation: str) -> None:
    """Put another activation into a block; YolomishError for an unknown name."""
    record = find_activation(activation)
    block.act, block.activation_name = record.build(block.act_channels), record.name


class ConvBlock(Activated):
    """Convolution, BatchNorm, activation: (B, C_in, H, W) -> (B, C_out, H/stride, W/stride) where the padding is half the kernel.

    Args:
        c_in: Channels of the input.
        c_out: Channels of the output.
        kernel: Side of the kernel.
        stride: One for both axes, or (y, x).
        padding: Zeros on each side, in px of the input; None for half the kernel, times ``dilation``.
        dilation: Distance of the kernel's cells.
        groups: Groups of channels that do not see each other.
        norm: Whether a batch norm follows; else the convolution has a bias.
        activation: A name or ``file.py:name``.
    """

    bn: nn.BatchNorm2d | None

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        norm: bool = True,
        activation: str,
    ) -> None:
        super().__init__()
        pad = kernel // 2 * dilation if padding is None else padding
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, pad, dilation, groups, bias=not norm)
        self.bn = nn.BatchNorm2d(c_out, eps=BN_EPSILON) if norm else None
        self.act_channels = c_out
        set_activation(self, activation)
        # Darknet src/convolutional_layer.c make_convolutional_layer: U(-1, 1)·sqrt(2 / fan_in), no activation gain
        bound = math.sqrt(2 / (kernel * kernel * c_in // groups))
        nn.init.uniform_(self.conv.weight, -bound, bound)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.act(x) if self.bn is None else norm_act(x, self.bn, self.act, self.activation_name)


def head_convolution(c_in: int, anchors: int, num_classes: int, kernel: int = 1) -> nn.Conv2d:
    """The last convolution of a head: ``anchors``·(5+K) logits per cell, all biases 0 but the objectness's.

    Those start at a prior of 0.01 (arXiv:1708.02002, 4.1), for early steadiness; Darknet starts at 0.5.
    """
    conv = nn.Conv2d(c_in, anchors * (5 + num_classes), kernel, padding=kernel // 2)
    bound = math.sqrt(2 / (kernel * kernel * c_in))
    nn.init.uniform_(conv.weight, -bound, bound)
    bias = torch.zeros(anchors, 5 + num_classes)
    bias[:, 4] = math.log(OBJECTNESS_PRIOR / (1 - OBJECTNESS_PRIOR))
    conv.bias = nn.Parameter(bias.flatten())
    return conv


class Residual(nn.Module):
    """x + 3x3(1x1(x)); the sum is linear, as Darknet's [shortcut]."""

    def __init__(self, channels: int, hidden: int, *, activation: str) -> None:
        super().__init__()
        self.reduce = ConvBlock(channels, hidden, 1, activation=activation)
        self.expand = ConvBlock(hidden, channels, 3, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        return derived(torch.add, x, self.expand(self.reduce(x)))


class CSPStage(nn.Module):
    """A cross-stage-partial stage (arXiv:1911.11929): halve the size, split in two ways, residuals on one, merge.

    The first stage (``full``) keeps all channels in both ways and halves them inside its residual. Modules are
    registered in Darknet's file order: down, bypass, main, residuals, post, merge.
    """

    def __init__(self, c_in: int, c_out: int, residuals: int, *, full: bool, activation: str) -> None:
        super().__init__()
        inner = c_out if full else c_out // 2
        self.down = ConvBlock(c_in, c_out, 3, stride=2, activation=activation)
        self.bypass = ConvBlock(c_out, inner, 1, activation=activation)
        self.main = ConvBlock(c_out, inner, 1, activation=activation)
        self.residuals = nn.Sequential(
            *(Residual(inner, c_in if full else inner, activation=activation) for _ in range(residuals))
        )
        self.post = ConvBlock(inner, inner, 1, activation=activation)
        self.merge = ConvBlock(2 * inner, c_out, 1, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        processed = self.post(self.residuals(self.main(x)))
        return self.merge(concatenate(processed, self.bypass(x)))  # Darknet's order: the processed way first


def concatenate(*maps: Tensor) -> Tensor:
    """Maps of one size beside each other in channels."""
    return derived(lambda *parts: torch.cat(parts, 1), *maps)


def conv_run(c_in: int, channels: int, length: int, *, wide: int = 0, activation: str) -> nn.Sequential:
    """``length`` convolutions 1x1, 3x3, 1x1, ... alternating ``channels`` and ``wide`` (0: twice that): the neck's usual run."""
    layers = []
    for i in range(length):
        c_out, kernel = (channels, 1) if i % 2 == 0 else (wide or 2 * channels, 3)
        layers.append(ConvBlock(c_in, c_out, kernel, activation=activation))
        c_in = c_out
    return nn.Sequential(*layers)


class CSPRun(nn.Module):
    """Cross-stage-partial around ``run``, from ``c_in`` to ``c_out`` channels: a 1x1 bypass beside it, a 1x1 over both
    (arXiv:2011.08036, 3.1). Modules are registered in Darknet's file order: bypass, run, merge."""

    def __init__(self, c_in: int, c_out: int, run: nn.Module, *, activation: str) -> None:
        super().__init__()
        self.bypass = ConvBlock(c_in, c_out, 1, activation=activation)
        self.run = run
        self.merge = ConvBlock(2 * c_out, c_out, 1, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        bypass = self.bypass(x)
        return self.merge(concatenate(self.run(x), bypass))


def upsample(x: Tensor) -> Tensor:
    """Twice the size, each value four times."""
    return derived(lambda small: F.interpolate(small, scale_factor=2.0), x)


class SPP(nn.Module):
    """Spatial pyramid pooling: concatenates max pools of 13, 9 and 5 and the input, in Darknet's order; size kept."""

    def forward(self, x: Tensor) -> Tensor:
        pools = [F.max_pool2d(x, k, stride=1, padding=k // 2) for k in (5, 9, 13)]
        return concatenate(*reversed(pools), x)
