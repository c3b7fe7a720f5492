"""Activations in closed form and batch norm's four steps in plain torch: what every kernel is measured against.

``x`` of the steps is (outer, C, inner): (B, C, H·W) for contiguous images, (B·H·W, C, 1) for channels_last. Arithmetic is
float32, or float64 for float64; sums over pixels are float64, since compiled C++ adds one by one: in float32 that lost
10 times as much as torch's. ``mean`` and ``invstd`` are (C,), 1/sqrt(variance + epsilon).

Mish in one exponential: with n = e·(e + 2), e = exp(x), tanh(softplus(x)) = n / (n + 2). From x = 40 on n / (n + 2) is 1 and
the derivative's second term 0 in any precision, so e is capped there and nothing overflows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

LEAKY_SLOPE = 0.1  # Darknet src/activations.h leaky_activate; torch's default is 0.01
MISH_CAP = 40.0
FUSED = ("mish", "leaky_relu", "relu", "silu", "swish", "hardswish", "hard_mish", "gelu", "linear")


def value(act: str, z: Tensor) -> Tensor:
    """The activation of ``z``, by differentiable torch operations."""
    if act == "mish":
        e = z.clamp(max=MISH_CAP).exp()
        n = e * (e + 2)
        return z * (n / (n + 2))
    if act == "leaky_relu":
        return torch.where(z > 0, z, LEAKY_SLOPE * z)
    if act == "relu":
        return F.relu(z)
    if act in ("silu", "swish"):
        return z * z.sigmoid()
    if act == "hardswish":
        return z * (z + 3).clamp(0, 6) / 6
    if act == "hard_mish":
        return z * (z + 2).clamp(0, 2) / 2
    if act == "gelu":
        return z * (0.5 * (1 + torch.erf(z * math.sqrt(0.5))))
    assert act == "linear", act
    return z


def slope(act: str, z: Tensor) -> Tensor:
    """The activation's derivative at ``z``; at a kink torch's choice."""
    one = torch.ones_like(z)
    if act == "mish":
        e = z.clamp(max=MISH_CAP).exp()
        n = e * (e + 2)
        r = 1 / (n + 2)
        return n * r + z * torch.where(z >= MISH_CAP, 0.0, 4 * (e * r) * ((e + 1) * r))
    if act == "leaky_relu":
        return torch.where(z > 0, one, LEAKY_SLOPE)
    if act == "relu":
        return torch.where(z > 0, one, 0.0)
    if act in ("silu", "swish"):
        s = z.sigmoid()
        return s * (1 + z * (1 - s))
    if act == "hardswish":
        return torch.where(z <= -3, 0.0, torch.where(z < 3, z / 3 + 0.5, one))
    if act == "hard_mish":
        return torch.where(z <= -2, 0.0, torch.where(z < 0, z + 1, one))
    if act == "gelu":
        return 0.5 * (1 + torch.erf(z * math.sqrt(0.5))) + z * (torch.exp(-0.5 * z * z) * (0.5 / math.pi) ** 0.5)
    assert act == "linear", act
    return one


def wide(x: Tensor) -> Tensor:
    """``x`` in the precision of the arithmetic."""
    return x if x.dtype == torch.float64 else x.float()


def _column(v: Tensor) -> Tensor:
    return wide(v).view(1, -1, 1)


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel, (C,) each; the variance from the centred values."""
    x = wide(x)
    mean = x.mean((0, 2), dtype=torch.float64).to(x.dtype)
    return mean, (x - mean.view(1, -1, 1)).square().mean((0, 2), dtype=torch.float64).to(x.dtype)


def apply(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, invstd: Tensor, act: str) -> Tensor:
    """act((x - mean) · invstd · weight + bias) in ``x``'s dtype."""
    z = (wide(x) - _column(mean)) * (_column(invstd) * _column(weight)) + _column(bias)
    return value(act, z).to(x.dtype)


def reduce(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, invstd: Tensor, act: str) -> Tensor:
    """(2, C): the sums of dz and of dz · (x - mean), where dz = dy · act'(z)."""
    centred = wide(x) - _column(mean)
    dz = wide(dy) * slope(act, centred * (_column(invstd) * _column(weight)) + _column(bias))
    sums = (v.sum((0, 2), dtype=torch.float64) for v in (dz, dz * centred))
    return torch.stack(tuple(sums)).to(dz.dtype)


def input_gradient(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    invstd: Tensor,
    shares: Tensor,
    act: str,
) -> Tensor:
    """The gradient of ``x``: weight · invstd · (dz - shares[0] - (x - mean) · shares[1]).

    ``shares`` (2, C) is what each value owes through mean and variance: the sums of ``reduce`` over the count, the second
    times invstd²; zeros where the statistics are constants.
    """
    centred = wide(x) - _column(mean)
    scale = _column(invstd) * _column(weight)
    dz = wide(dy) * slope(act, centred * scale + _column(bias))
    return (scale * (dz - _column(shares[0]) - centred * _column(shares[1]))).to(x.dtype)
