"""Activations with parameters of their own, (C,) for the channels of dimension 1, or (1,) for all of them.

They start at fixed values, so that equal seeds draw equal kernels whatever the activation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def _along_channels(parameter: Tensor, x: Tensor) -> Tensor:
    """(C,) to be broadcast over (B, C, ...)."""
    return parameter.view(-1, *[1] * (x.dim() - 2))


class PRelu(nn.PReLU):
    """x where positive, else the channel's slope times x; a checkpoint's single slope is taken by every channel."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__(channels, init=0.25)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        stored = state_dict.get(f"{prefix}weight")
        if stored is not None and stored.shape == (1,):
            state_dict[f"{prefix}weight"] = stored.expand(self.num_parameters)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class SwishBeta(nn.Module):
    """x·sigmoid(beta·x)."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(_along_channels(self.beta, x) * x)


class AconC(nn.Module):
    """(p1 - p2)·x·sigmoid(beta·(p1 - p2)·x) + p2·x, from p1 = 1, p2 = 0, beta = 1 on: SiLU.

    The paper's code draws p1 and p2 from a normal distribution.
    """

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.p1, self.p2 = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        p1, p2, beta = (_along_channels(p, x) for p in (self.p1, self.p2, self.beta))
        above = (p1 - p2) * x
        return above * torch.sigmoid(beta * above) + p2 * x


class StarRelu(nn.Module):
    """scale·relu(x)² + shift; for normal x the first values leave mean 0 and variance 1."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.tensor([0.8944])), nn.Parameter(torch.tensor([-0.4472]))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.relu().square() + self.shift
