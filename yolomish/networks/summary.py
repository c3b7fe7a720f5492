"""What a model holds and costs: layers, parameters, BFLOPs as Darknet counts them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import nn

from yolomish.config import ModelConfig
from yolomish.networks.yolov4 import build_network
from yolomish.nn.blocks import SPP, ConvBlock, Residual


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One convolution: input and output as (C, H, W), trainable parameters with its BN, BFLOPs (2 x MAC / 1e9)."""

    name: str
    kernel: int
    stride: int
    input_chw: tuple[int, int, int]
    output_chw: tuple[int, int, int]
    activation: str
    parameters: int
    bflops: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A model at one square size: its convolutions in Darknet's order, totals, activation counts."""

    image_size: int
    layers: tuple[Layer, ...]
    parameters: int
    bflops: float
    activations: dict[str, int]


def summarise(config: ModelConfig, image_size: int) -> Summary:
    """Count the model of ``config`` at ``image_size`` (px) in one pass on the meta device: nothing is computed.

    BFLOPs are Darknet's: 2·MAC of the convolutions plus shortcuts, pools and upsampling (src/parser.c).
    """
    with torch.device("meta"):
        model = build_network(config).eval()
        images = torch.empty(1, 3, image_size, image_size)
    shapes: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    extra = 0.0

    def record(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        nonlocal extra
        if isinstance(module, nn.Conv2d):
            shapes[id(module)] = (tuple(inputs[0].shape[1:]), tuple(output.shape[1:]))
        elif isinstance(module, Residual):
            extra += output.numel()
        else:
            extra += (5 * 5 + 9 * 9 + 13 * 13) * inputs[0].numel()

    for module in model.modules():
        if isinstance(module, nn.Conv2d | Residual | SPP):
            module.register_forward_hook(record)
    with torch.no_grad():
        model(images)
    names = {id(m.conv): m.activation_name for m in model.modules() if isinstance(m, ConvBlock)}
    layers = []
    for name, conv, bn in model.darknet_order():
        chw_in, chw_out = shapes[id(conv)]
        parameters = sum(p.numel() for p in conv.parameters()) + (sum(p.numel() for p in bn.parameters()) if bn else 0)
        k = conv.kernel_size[0]
        layers.append(
            Layer(
                name=name,
                kernel=k,
                stride=conv.stride[0],
                input_chw=chw_in,  # type: ignore[arg-type]
                output_chw=chw_out,  # type: ignore[arg-type]
                activation=names.get(id(conv), "linear"),
                parameters=parameters,
                bflops=2 * k * k * chw_in[0] * chw_out[0] * chw_out[1] * chw_out[2] / 1e9,
            )
        )
    return Summary(
        image_size=image_size,
        layers=tuple(layers),
        parameters=sum(p.numel() for p in model.parameters()),
        bflops=sum(layer.bflops for layer in layers) + extra / 1e9,
        activations=dict(Counter(layer.activation for layer in layers)),
    )
