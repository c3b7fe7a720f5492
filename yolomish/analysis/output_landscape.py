"""The output of a random network over its two inputs: how smooth an activation is once stacked (arXiv:1908.08681, fig. 3)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from yolomish.activations import build_activation


@dataclass(frozen=True, kw_only=True)
class OutputLandscape:
    """``values`` (P, P) of one output over y (rows) and x (columns), both at ``axis`` (P,)."""

    activation: str
    axis: np.ndarray
    values: np.ndarray

    def roughness(self) -> float:
        """The root mean square of the second differences along both axes, as a share of the values' range; 0 for a plane."""
        spread = float(np.ptp(self.values))
        bends = np.concatenate([np.diff(self.values, 2, axis=k).ravel() for k in (0, 1)])
        return float(np.sqrt(np.mean(bends**2)) / spread) if spread else 0.0


@torch.no_grad()
def output_landscape(
    activation: str, *, layers: int = 5, width: int = 64, points: int = 201, span: float = 4.0, seed: int = 0
) -> OutputLandscape:
    """A fully connected network of ``layers`` linear layers, 2 inputs and 1 output, on a grid over [-span, span]².

    Weights are He-normal and biases uniform as torch's, drawn from ``seed`` before any activation is built: every
    activation has the same weights at one seed.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = [2, *[width] * (layers - 1), 1]
    parts: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        linear = nn.Linear(inputs, outputs, dtype=torch.float64)
        linear.weight.copy_(torch.randn(outputs, inputs, generator=generator, dtype=torch.float64) * (2 / inputs) ** 0.5)
        linear.bias.copy_((2 * torch.rand(outputs, generator=generator, dtype=torch.float64) - 1) / inputs**0.5)
        parts += [linear] if i + 1 == layers else [linear, build_activation(activation).double()]
    axis = torch.linspace(-span, span, points, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    values = nn.Sequential(*parts)(torch.stack((x, y), -1).reshape(-1, 2)).reshape(points, points)
    return OutputLandscape(activation=activation, axis=axis.numpy(), values=values.numpy())
