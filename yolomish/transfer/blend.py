"""From one activation to another by degrees, and batch norms that know the new one's statistics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from yolomish.networks import Network
from yolomish.nn.blocks import Activated, set_activation

BLEND = "blend"  # the activation name of a block between two activations: no fast form has it


class Blend(nn.Module):
    """(1 - share)·old(x) + share·new(x); the share is no parameter."""

    def __init__(self, old: nn.Module, new: nn.Module) -> None:
        super().__init__()
        self.old, self.new, self.share = old, new, 0.0

    def forward(self, x: Tensor) -> Tensor:
        return torch.lerp(self.old(x), self.new(x), self.share)


def start_blend(blocks: Mapping[str, Activated], activation: str) -> None:
    """Let each block blend from its activation, which it still is, to another."""
    for block in blocks.values():
        old = block.act
        set_activation(block, activation)
        block.act, block.activation_name = Blend(old, block.act), BLEND


def set_share(blocks: Mapping[str, Activated], share: float) -> None:
    """The new activation's share, 0..1, in every block that blends."""
    for block in blocks.values():
        if isinstance(block.act, Blend):
            block.act.share = share


def end_blend(blocks: Mapping[str, Activated], activation: str) -> None:
    """The new activation alone, with what it has learned."""
    for block in blocks.values():
        assert isinstance(block.act, Blend)
        learned = block.act.new
        set_activation(block, activation)
        block.act = learned


@torch.no_grad()
def re_estimate(network: Network, batches: Iterable[Tensor]) -> int:
    """Give every batch norm the mean over the batches of their own means and variances; returns how many images those were.

    Batches (B, C, H, W) are as the network takes them. Weights stay as they are; the network is left in evaluation mode.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    network.eval()  # no dropout
    images = 0
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch then averages all batches alike
            norm.train()
        for batch in batches:
            network(batch)
            images += len(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        network.eval()
    return images
