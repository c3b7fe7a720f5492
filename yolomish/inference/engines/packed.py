"""Convolutions whose weights are laid out once for the CPU, with the activation applied where oneDNN can.

torch's own ``conv2d`` puts the weights in oneDNN's layout at every call, which for YOLOv4 moves 257 MB an image; here
that is done at the first call. These are the operators that torch.compile itself uses for frozen networks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn

from yolomish.kernels.formulas import LEAKY_SLOPE
from yolomish.networks import Network
from yolomish.nn.blocks import ConvBlock
from yolomish.nn.fold import FoldedBlock, folded

FUSED_ACTIVATIONS: dict[str, tuple[str, list[float]]] = {
    "leaky_relu": ("leaky_relu", [LEAKY_SLOPE]),
    "relu": ("relu", []),
    "silu": ("swish", []),
    "swish": ("swish", []),
    "hardswish": ("hardswish", []),
    "tanh": ("tanh", []),
    "linear": ("none", []),
}  # oneDNN has Mish too, but torch does not let it through: a C++ loop follows


class PackedConv(nn.Module):
    """Convolution with bias and activation on dense (B, C, H, W), laid out for the first input's size; others work too."""

    def __init__(self, conv: nn.Conv2d, name: str = "linear", act: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.padding, self.stride = [int(p) for p in conv.padding], list(conv.stride)
        self.weight, self.bias = conv.weight.detach(), conv.bias.detach() if conv.bias is not None else None
        self.packed: Tensor | None = None
        self.fused, self.scalars = FUSED_ACTIVATIONS.get(name, ("none", []))
        self.act = None if name in FUSED_ACTIVATIONS else act

    def forward(self, x: Tensor) -> Tensor:
        ops = torch.ops.mkldnn
        where = (self.padding, self.stride, [1, 1], 1)
        weight = self.packed
        if weight is None:
            weight = self.packed = ops._reorder_convolution_weight(self.weight, *where, list(x.shape))
        x = ops._convolution_pointwise(x.to(self.weight.dtype), weight, self.bias, *where, self.fused, self.scalars, "")
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
        return f"oneDNN's packed convolution fails: {str(error).strip().splitlines()[0][:100]}"
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
