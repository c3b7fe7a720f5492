"""Pictures of activations: f, f' and f''."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from yolomish.activations.record import Activation
from yolomish.activations.registry import find_activation
from yolomish.errors import YolomishError
from yolomish.files import replace_file


def plot_activations(names: Sequence[str], path: str | Path) -> None:
    """Write a PNG with f, f' and f'' of each activation over [-5, 5], derivatives by float64 autograd; YolomishError if it
    cannot. Of several names of one activation the first is drawn."""
    figure = Figure(figsize=(15, 5), layout="constrained")
    axes = figure.subplots(1, 3)
    drawn: dict[str, tuple[str, Activation]] = {}
    for name in names:
        record = find_activation(name)
        drawn.setdefault(record.name, (name, record))
    for index, (name, record) in enumerate(drawn.values()):
        x = torch.linspace(-5, 5, 1000, dtype=torch.float64, requires_grad=True)
        y = record.build().double()(x)
        (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        if first.requires_grad:
            (second,) = torch.autograd.grad(first.sum(), x, allow_unused=True, materialize_grads=True)
        else:
            second = torch.zeros_like(x)
        style = "-" if index < 10 else "--"
        for axis, values in zip(axes, (y, first, second), strict=True):
            axis.plot(x.detach(), values.detach(), style, label=name, linewidth=1.5)
    for axis, title in zip(axes, ("f(x)", "f'(x)", "f''(x)"), strict=True):
        axis.set(title=title, xlabel="x")
        axis.axhline(0, color="0.7", linewidth=0.6, zorder=0)
        axis.grid(alpha=0.3)
    axes[0].set_ylim(-2, 5)
    axes[1].set_ylim(-0.5, 1.8)
    axes[0].legend(fontsize=8)
    try:
        replace_file(path, lambda temporary: figure.savefig(temporary, dpi=110))
    except (OSError, ValueError) as error:
        raise YolomishError(f"{path} cannot be written: {error}") from None
