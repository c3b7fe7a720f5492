"""An inference copy of a network: batch norms folded into the convolutions, activations in place on their output."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from yolomish.activations import find_activation
from yolomish.nn.blocks import ConvBlock

M = TypeVar("M", bound=nn.Module)


class FoldedBlock(nn.Module):
    """Convolution with bias, then the activation; in place where torch can, for nobody else holds the convolution's output."""

    def __init__(self, conv: nn.Conv2d, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = conv
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))


@torch.no_grad()
def fold_batch_norm(conv: nn.Conv2d, bn: nn.modules.batchnorm._BatchNorm) -> nn.Conv2d:
    """A new convolution that computes ``bn(conv(x))`` of evaluation mode; computed in float64, kept in the weights' dtype.

    Darknet src/network.c fuse_conv_batchnorm, with the norm's own epsilon.
    """
    assert bn.running_mean is not None and bn.running_var is not None
    scale = (bn.running_var.double() + bn.eps).rsqrt()
    if bn.weight is not None:
        scale = scale * bn.weight.double()
    bias = -bn.running_mean.double() * scale
    if conv.bias is not None:
        bias = bias + conv.bias.double() * scale
    if bn.bias is not None:
        bias = bias + bn.bias.double()
    folded_conv = copy.deepcopy(conv)
    folded_conv.weight.copy_(conv.weight.double() * scale.view(-1, 1, 1, 1))
    folded_conv.bias = nn.Parameter(bias.to(conv.weight.dtype))
    return folded_conv


def folded_convolution(block: ConvBlock) -> nn.Conv2d:
    """A new convolution with bias that computes what stands before a block's activation."""
    return copy.deepcopy(block.conv) if block.bn is None else fold_batch_norm(block.conv, block.bn)


def folded(model: M) -> M:
    """A copy of ``model`` for inference: the same ``heads`` and raw maps, no batch norm, no gradients; ``model`` is untouched.

    Every ``ConvBlock`` becomes one convolution with bias and its activation, whatever that is. The copy is in evaluation
    mode on ``model``'s device, in its dtype and memory format: fold before lowering the precision.
    """
    fused = cast(M, copy.deepcopy(model).eval().requires_grad_(False))
    for parent in list(fused.modules()):
        for name, block in list(parent.named_children()):
            if isinstance(block, ConvBlock):
                act = find_activation(block.activation_name).in_place or block.act
                conv = folded_convolution(block).requires_grad_(False)
                setattr(parent, name, FoldedBlock(conv, act))
    return fused.eval()
