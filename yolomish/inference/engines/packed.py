"""Convolutions whose weights are laid out once for the CPU, with the activation applied where oneDNN can.

torch's own ``conv2d`` puts the weights in oneDNN's layout at every call, which for 64 M parameters moves 257 MB per image;
here that is done at the first call. These are the operators that torch.compile itself uses for frozen networks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn

from yolomish.activations import OneDnnForm, find_activation
from yolomish.errors import first_line
from yolomish.networks import Network
from yolomish.nn.blocks import ConvBlock
from yolomish.nn.fold import FoldedBlock, folded


class PackedConv(nn.Module):
    """Convolution with bias and activation on dense (B, C, H, W), laid out for the first input's size; others work too."""

    def __init__(self, conv: nn.Conv2d, name: str = "linear", act: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.where = [int(p) for p in conv.padding], list(conv.stride), list(conv.dilation), conv.groups
        self.weight, self.bias = conv.weight.detach(), conv.bias.detach() if conv.bias is not None else None
        self.packed: Tensor | None = None
        form = find_activation(name).onednn
        self.fused = form or OneDnnForm(name="none")
        self.act = None if form else act

    def forward(self, x: Tensor) -> Tensor:
        ops = torch.ops.mkldnn
        weight = self.packed
        if weight is None:
            weight = self.packed = ops._reorder_convolution_weight(self.weight, *self.where, list(x.shape))
        fused = (self.fused.name, list(self.fused.scalars), self.fused.algorithm)
        x = ops._convolution_pointwise(x.to(self.weight.dtype), weight, self.bias, *self.where, *fused)
        return x if self.act is None else self.act(x)


@lru_cache
def packing_missing(dtype: torch.dtype) -> str:
    """Why ``PackedConv`` cannot compute in ``dtype`` here, empty where it can."""
    if not torch.backends.mkldnn.is_available():
        return "this torch has no oneDNN"
    conv = nn.Conv2d(16, 16, 3, padding=1).to(dtype)
    try:
        with torch.inference_mode():
            PackedConv(conv, "leaky_relu")(torch.zeros(1, 16, 8, 8, dtype=dtype).to(memory_format=torch.channels_last))
    except (AttributeError, RuntimeError) as error:
        return f"oneDNN's packed convolution fails: {first_line(error, 100)}"
    return ""


def packed(network: Network, dtype: torch.dtype) -> Network:
    """A folded, packed copy of ``network`` on the CPU in ``dtype``; it wants channels_last images.

    The heads' last convolutions, which are the raw maps, stay in float32.
    """
    names = {path: block.activation_name for path, block in network.named_modules() if isinstance(block, ConvBlock)}
    copy = folded(network)
    for path, module in list(copy.named_modules()):
        if isinstance(module, FoldedBlock):
            copy.set_submodule(path, PackedConv(module.conv.to(dtype), names[path], module.act))
    for path, module in list(copy.named_modules()):
        if isinstance(module, nn.Conv2d):
            copy.set_submodule(path, PackedConv(module))
    return copy
