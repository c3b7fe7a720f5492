"""What a network holds and costs: layers in Darknet's order, parameters, BFLOPs as Darknet counts them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from yolomish.config import ModelConfig
from yolomish.darknet.order import file_order
from yolomish.darknet.write import section_numbers
from yolomish.networks.registry import outline
from yolomish.nn.blocks import ConvBlock
from yolomish.types import SizeHW

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One convolution and the number of its section: input and output as (C, H, W), trainable parameters with its BN, BFLOPs
    (2 x MAC / 1e9)."""

    name: str
    number: int
    kernel: int
    stride: int
    input_chw: Shape
    output_chw: Shape
    activation: str
    parameters: int
    bflops: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A network at one size: its convolutions in Darknet's order, totals, activation counts."""

    image_size_hw: SizeHW
    layers: tuple[Layer, ...]
    parameters: int
    bflops: float
    activations: dict[str, int]


def _sum(a: Shape, b: Any, *_: Any, out_shape: Shape, **__: Any) -> int:
    maps = isinstance(b, torch.Size) and len(b) == 4  # not a number, nor a batch norm's counter
    return torch.Size(out_shape).numel() if maps else 0


def _pool(x: Shape, kernel: list[int], *_: Any, out_shape: tuple[Shape, Shape], **__: Any) -> int:
    return kernel[0] * kernel[-1] * torch.Size(out_shape[0]).numel()


# Darknet counts shortcuts and pools beside 2·MAC of the convolutions (src/shortcut_layer.c, src/maxpool_layer.c)
COUNTED: dict[Any, Any] = {torch.ops.aten.add: _sum, torch.ops.aten.max_pool2d_with_indices: _pool}


def summarise(config: ModelConfig, size_hw: SizeHW) -> Summary:
    """Count the network of ``config`` at a size in px in one pass on the meta device: nothing is computed."""
    network = outline(config)
    network.input.check_size(size_hw)
    numbers = section_numbers(network)
    shapes: dict[int, tuple[Shape, Shape]] = {}

    def record(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        shapes[id(module)] = (tuple(inputs[0].shape[1:]), tuple(output.shape[1:]))

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(record)
    images = torch.empty(1, network.input.channels, *size_hw, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=COUNTED) as counter:
        network(images)
    names = {id(m.conv): m.activation_name for m in network.modules() if isinstance(m, ConvBlock)}
    layers = []
    for stored in file_order(network):
        conv = stored.module
        if not isinstance(conv, nn.Conv2d):
            continue
        chw_in, chw_out = shapes[id(conv)]
        layers.append(
            Layer(
                name=stored.name,
                number=numbers[stored.name.removesuffix(".conv")],
                kernel=conv.kernel_size[0],
                stride=conv.stride[0],
                input_chw=chw_in,
                output_chw=chw_out,
                activation=names.get(id(conv), "linear"),
                parameters=sum(p.numel() for part in (conv, stored.norm) if part is not None for p in part.parameters()),
                bflops=2 * conv.weight[0].numel() * torch.Size(chw_out).numel() / 1e9,
            )
        )
    return Summary(
        image_size_hw=size_hw,
        layers=tuple(layers),
        parameters=sum(p.numel() for p in network.parameters()),
        bflops=counter.get_total_flops() / 1e9,
        activations=dict(Counter(layer.activation for layer in layers)),
    )
