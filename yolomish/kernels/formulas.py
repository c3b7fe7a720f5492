"""Activations in closed form and batch norm's four steps in plain torch: what every kernel is measured against.

``x`` of the steps is (outer, C, inner): (B, C, H·W) for contiguous images, (B·H·W, C, 1) for channels_last. Arithmetic is
float32, or float64 for float64; sums over pixels are float64, since compiled C++ adds one by one: in float32 that lost
10 times as much as torch's. ``mean`` and ``invstd`` are (C,), 1/sqrt(variance + epsilon).

Mish in one exponential: with n = e·(e + 2), e = exp(x), tanh(softplus(x)) = n / (n + 2). From x = 40 on n / (n + 2) is 1 and
the derivative's second term 0 in any precision, so e is capped there and nothing overflows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

LEAKY_SLOPE = 0.1  # Darknet src/activations.h leaky_activate; torch's default is 0.01
MISH_CAP = 40.0
GELU_SCALE = 2 * math.sqrt(2 / math.pi)  # 0.5 (1 + tanh(u)) = sigmoid(2 u)
GELU_CUBIC = 0.044715
TANHEXP_CAP = 4.0  # from 3 on tanh(e^x) is 1 in float64


class ClosedForm(NamedTuple):
    """An activation's value, by differentiable torch operations, and its derivative (at a kink torch's choice)."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]


def _mish(z: Tensor) -> Tensor:
    e = z.clamp(max=MISH_CAP).exp()
    n = e * (e + 2)
    return z * (n / (n + 2))


def _mish_slope(z: Tensor) -> Tensor:
    e = z.clamp(max=MISH_CAP).exp()
    n = e * (e + 2)
    r = 1 / (n + 2)
    return n * r + z * torch.where(z >= MISH_CAP, 0.0, 4 * (e * r) * ((e + 1) * r))


def _leaky_relu(z: Tensor) -> Tensor:
    return F.leaky_relu(z, LEAKY_SLOPE)


def _leaky_relu_slope(z: Tensor) -> Tensor:
    return torch.where(z > 0, torch.ones_like(z), LEAKY_SLOPE)


def _relu_slope(z: Tensor) -> Tensor:
    return torch.where(z > 0, torch.ones_like(z), 0.0)


def _relu6_slope(z: Tensor) -> Tensor:
    return torch.where((z > 0) & (z < 6), torch.ones_like(z), 0.0)


def _silu(z: Tensor) -> Tensor:
    return z * z.sigmoid()


def _silu_slope(z: Tensor) -> Tensor:
    s = z.sigmoid()
    return s * (1 + z * (1 - s))


def _sigmoid_slope(z: Tensor) -> Tensor:
    s = z.sigmoid()
    return s * (1 - s)


def _hardswish(z: Tensor) -> Tensor:
    return z * (z + 3).clamp(0, 6) / 6


def _hardswish_slope(z: Tensor) -> Tensor:
    return torch.where(z <= -3, 0.0, torch.where(z < 3, z / 3 + 0.5, torch.ones_like(z)))


def _hard_mish(z: Tensor) -> Tensor:
    return z * (z + 2).clamp(0, 2) / 2


def _hard_mish_slope(z: Tensor) -> Tensor:
    return torch.where(z <= -2, 0.0, torch.where(z < 0, z + 1, torch.ones_like(z)))


def _gelu(z: Tensor) -> Tensor:
    return z * (0.5 * (1 + torch.erf(z * math.sqrt(0.5))))


def _gelu_slope(z: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(z * math.sqrt(0.5))) + z * (torch.exp(-0.5 * z * z) * (0.5 / math.pi) ** 0.5)


def _gelu_tanh(z: Tensor) -> Tensor:
    return z * (GELU_SCALE * (z + GELU_CUBIC * z * z * z)).sigmoid()


def _gelu_tanh_slope(z: Tensor) -> Tensor:
    w = GELU_SCALE * (z + GELU_CUBIC * z * z * z)
    s = w.sigmoid()
    return s + z * (s * (-w).sigmoid()) * (GELU_SCALE * (1 + 3 * GELU_CUBIC * z * z))


def _squareplus(z: Tensor) -> Tensor:
    above = z.clamp(min=0)
    return above + 2 / ((z * z + 4).sqrt() + (2 * above - z))  # f(z) - f(-z) = z: nothing is lost below 0


def _squareplus_slope(z: Tensor) -> Tensor:
    return _squareplus(z) / (z * z + 4).sqrt()


def _tanhexp(z: Tensor) -> Tensor:
    return z * z.clamp(max=TANHEXP_CAP).exp().tanh()


def _tanhexp_slope(z: Tensor) -> Tensor:
    e = z.clamp(max=TANHEXP_CAP).exp()
    q = (-2 * e).exp()
    return e.tanh() + z * torch.where(z >= TANHEXP_CAP, 0.0, 4 * e * q / (1 + q).square())


def _logish(z: Tensor) -> Tensor:
    return z * z.sigmoid().log1p()


def _logish_slope(z: Tensor) -> Tensor:
    s = z.sigmoid()
    return s.log1p() + z * (s * (1 - s) / (1 + s))


def _smish(z: Tensor) -> Tensor:
    s = z.sigmoid()
    n = s * (s + 2)
    return z * (n / (n + 2))  # tanh(ln(u)) = (u² - 1)/(u² + 1)


def _smish_slope(z: Tensor) -> Tensor:
    s = z.sigmoid()
    n = s * (s + 2)
    r = 1 / (n + 2)
    return n * r + z * (4 * (s + 1) * r * r * s * (1 - s))


def _linear(z: Tensor) -> Tensor:
    return z


CLOSED_FORMS: dict[str, ClosedForm] = {
    "mish": ClosedForm(_mish, _mish_slope),
    "leaky_relu": ClosedForm(_leaky_relu, _leaky_relu_slope),
    "relu": ClosedForm(F.relu, _relu_slope),
    "relu6": ClosedForm(F.relu6, _relu6_slope),
    "silu": ClosedForm(_silu, _silu_slope),
    "sigmoid": ClosedForm(torch.sigmoid, _sigmoid_slope),
    "hardswish": ClosedForm(_hardswish, _hardswish_slope),
    "hard_mish": ClosedForm(_hard_mish, _hard_mish_slope),
    "gelu": ClosedForm(_gelu, _gelu_slope),
    "gelu_tanh": ClosedForm(_gelu_tanh, _gelu_tanh_slope),
    "squareplus": ClosedForm(_squareplus, _squareplus_slope),
    "tanhexp": ClosedForm(_tanhexp, _tanhexp_slope),
    "logish": ClosedForm(_logish, _logish_slope),
    "smish": ClosedForm(_smish, _smish_slope),
    "linear": ClosedForm(_linear, torch.ones_like),
}  # by the activation's name; ``triton_code`` has a branch for each


def wide(x: Tensor) -> Tensor:
    """``x`` in the precision of the arithmetic."""
    return x if x.dtype == torch.float64 else x.float()


def value(x: Tensor, act: str) -> Tensor:
    """act(x) in ``x``'s dtype, differentiable."""
    return CLOSED_FORMS[act].value(wide(x)).to(x.dtype)


def slope(dy: Tensor, x: Tensor, act: str) -> Tensor:
    """dy · act'(x) in ``x``'s dtype, differentiable."""
    return (wide(dy) * CLOSED_FORMS[act].slope(wide(x))).to(x.dtype)


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
    return CLOSED_FORMS[act].value(z).to(x.dtype)


def reduce(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, invstd: Tensor, act: str) -> Tensor:
    """(2, C): the sums of dz and of dz · (x - mean), where dz = dy · act'(z)."""
    centred = wide(x) - _column(mean)
    dz = wide(dy) * CLOSED_FORMS[act].slope(centred * (_column(invstd) * _column(weight)) + _column(bias))
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

    ``shares`` (2, C) is each value's part of the gradient that flows through mean and variance: the sums of ``reduce`` over
    the count, the second times invstd²; zeros where the statistics are constants.
    """
    centred = wide(x) - _column(mean)
    scale = _column(invstd) * _column(weight)
    dz = wide(dy) * CLOSED_FORMS[act].slope(centred * scale + _column(bias))
    return (scale * (dz - _column(shares[0]) - centred * _column(shares[1]))).to(x.dtype)
