"""In which order Darknet stores a network's convolutions: each Python architecture has its line here."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from yolomish.networks import Network
from yolomish.nn.blocks import ConvBlock

# cfg/yolov4.cfg: the P3 head stands before the bottom-up path and the P4 head before the last step down
ORDERS: dict[str, tuple[str, ...]] = {
    "yolov4": (
        "backbone",
        *(f"neck.{n}" for n in ("before_spp", "after_spp", "up5", "lateral4", "top_down4", "up4", "lateral3", "top_down3")),
        "head_layers.0",
        *("neck.down3", "neck.bottom_up4", "head_layers.1"),
        *("neck.down4", "neck.bottom_up5", "head_layers.2"),
    )
}


def file_order(network: Network) -> Iterator[tuple[str, nn.Conv2d, nn.BatchNorm2d | None]]:
    """(name, convolution, its batch norm or None) in the order of a ``.weights`` file."""
    for prefix in ORDERS.get(network.config.architecture, ("",)):
        part = network.get_submodule(prefix)
        norms = {id(m.conv): m.bn for m in part.modules() if isinstance(m, ConvBlock)}
        for name, module in part.named_modules():
            if isinstance(module, nn.Conv2d):
                yield f"{prefix}.{name}".strip("."), module, norms.get(id(module))
