"""The Triton kernels and their launches; the only file that imports ``triton``.

Two layouts, one code: a tile is (BLOCK, CHANNELS) values. In channels_last (LAST) its rows are pixels and its columns
channels; in contiguous images it is a stretch of one plane, CHANNELS = 1. Arithmetic is float32, the merging of partial
statistics float64; sums go through partial results in fixed order, so the same input has the same bits. Sizes are plain
arguments: another image size compiles nothing new but, once, what differs where a size is no multiple of 16.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

from yolomish.kernels.formulas import GELU_CUBIC, GELU_SCALE, LEAKY_SLOPE, MISH_CAP

SLOPE = tl.constexpr(LEAKY_SLOPE)
CAP = tl.constexpr(MISH_CAP)
SCALE = tl.constexpr(GELU_SCALE)
CUBIC = tl.constexpr(GELU_CUBIC)
LOG2E = tl.constexpr(1.4426950408889634)
PTX = tl.constexpr(torch.version.hip is None and os.environ.get("TRITON_INTERPRET") != "1")  # what is compiled is NVIDIA's
TILE = 2048  # values of a program's tile
PROGRAMS = 1024  # of a reduction: some waves over any GPU


@triton.jit
def _exp(x):
    """exp(x), below 2^-126 zero: tl.exp's denormal results cost three instructions more."""
    if PTX:
        return tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x * LOG2E], tl.float32, True, 1)
    return tl.exp(x)


@triton.jit
def _reciprocal(x):
    """1/x within one unit in the last place; a full division costs six instructions more."""
    if PTX:
        return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, True, 1)
    return 1 / x


@triton.jit
def _value(z, ACT: tl.constexpr):
    if ACT == "mish":
        e = _exp(tl.minimum(z, CAP))
        n = e * (e + 2)
        y = z * (n * _reciprocal(n + 2))
    elif ACT == "leaky_relu":
        y = tl.where(z > 0, z, SLOPE * z)
    elif ACT == "relu":
        y = tl.where(z <= 0, 0.0, z)  # keeps nan
    elif ACT == "relu6":
        y = tl.where(z <= 0, 0.0, tl.where(z >= 6, 6.0, z))
    elif ACT == "silu":
        y = z * _reciprocal(1 + _exp(-z))
    elif ACT == "sigmoid":
        y = _reciprocal(1 + _exp(-z))
    elif ACT == "hardswish":
        y = z * tl.minimum(tl.maximum(z + 3, 0.0), 6.0) * (1 / 6)
    elif ACT == "hard_mish":
        y = z * tl.minimum(tl.maximum(z + 2, 0.0), 2.0) * 0.5
    elif ACT == "gelu":
        y = z * (0.5 * (1 + tl.erf(z * 0.7071067811865476)))
    elif ACT == "gelu_tanh":
        y = z * _reciprocal(1 + _exp((z + z * z * z * CUBIC) * -SCALE))
    else:
        tl.static_assert(ACT == "linear")
        y = z
    return y


@triton.jit
def _slope(z, ACT: tl.constexpr):
    if ACT == "mish":
        e = _exp(tl.minimum(z, CAP))
        n = e * (e + 2)
        r = _reciprocal(n + 2)
        d = n * r + z * tl.where(z >= CAP, 0.0, 4 * (e * r) * ((e + 1) * r))
    elif ACT == "leaky_relu":
        d = tl.where(z > 0, 1.0, SLOPE)
    elif ACT == "relu":
        d = tl.where(z > 0, 1.0, 0.0)
    elif ACT == "relu6":
        d = tl.where((z > 0) & (z < 6), 1.0, 0.0)
    elif ACT == "silu":
        e = _exp(tl.minimum(-z, 80.0))
        s = _reciprocal(1 + e)
        d = s * (1 + z * (e * s))  # 1 - s would be of the reciprocal's error, times z
    elif ACT == "sigmoid":
        s = _reciprocal(1 + _exp(-z))
        d = s * (1 - s)
    elif ACT == "hardswish":
        d = tl.where(z <= -3, 0.0, tl.where(z < 3, z * (1 / 3) + 0.5, 1.0))
    elif ACT == "hard_mish":
        d = tl.where(z <= -2, 0.0, tl.where(z < 0, z + 1, 1.0))
    elif ACT == "gelu":
        d = 0.5 * (1 + tl.erf(z * 0.7071067811865476)) + z * (_exp(-0.5 * z * z) * 0.3989422804014327)
    elif ACT == "gelu_tanh":
        w = (z + z * z * z * CUBIC) * SCALE
        s = _reciprocal(1 + _exp(-w))
        d = s + z * (s * _reciprocal(1 + _exp(w))) * ((1 + z * z * (3 * CUBIC)) * SCALE)
    else:
        tl.static_assert(ACT == "linear")
        d = z * 0 + 1
    return d


@triton.jit
def _tile(t, c, C, S, rows, per_plane, LAST: tl.constexpr, BLOCK: tl.constexpr):
    """Start of tile ``t``, offsets from it and the mask, (BLOCK, CHANNELS); the start in 64 bits, for large batches."""
    i = tl.arange(0, BLOCK)
    if LAST:
        start = (t * BLOCK).to(tl.int64) * C
        offsets = i[:, None] * C + c[None, :]
        mask = (t * BLOCK + i < rows)[:, None] & (c < C)[None, :]
    else:
        s = (t % per_plane) * BLOCK
        start = (t // per_plane).to(tl.int64) * C * S + s
        offsets = c[None, :].to(tl.int64) * S + i[:, None]
        mask = ((s + i < S) & (t // per_plane < rows))[:, None] & (c < C)[None, :]
    return start, offsets, mask


@triton.jit
def _valid(t, S, rows, per_plane, LAST: tl.constexpr, BLOCK: tl.constexpr):
    """How many values of a channel are in tile ``t``."""
    if LAST:
        return tl.maximum(0, tl.minimum(BLOCK, rows - t * BLOCK)).to(tl.float32)
    inside = tl.minimum(BLOCK, S - (t % per_plane) * BLOCK)
    return tl.where(t // per_plane < rows, inside, 0).to(tl.float32)


@triton.jit(do_not_specialize=["rows", "per_plane", "share"])
def statistics_kernel(
    x_ptr, part_ptr, C, S, rows, per_plane, share, LAST: tl.constexpr, BLOCK: tl.constexpr, CHANNELS: tl.constexpr
):
    """Count, mean and squared sum of ``share`` tiles into part (3, programs, C): sums of the differences to the first tile's
    mean, which leave little to cancel."""
    p, programs = tl.program_id(0), tl.num_programs(0)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    start, offsets, mask = _tile(p * share, c, C, S, rows, per_plane, LAST, BLOCK)
    x = tl.load(x_ptr + start + offsets, mask, 0.0).to(tl.float32)
    middle = tl.sum(x, 0) / _valid(p * share, S, rows, per_plane, LAST, BLOCK)
    count = 0.0
    first = tl.zeros((BLOCK, CHANNELS), tl.float32)
    second = tl.zeros((BLOCK, CHANNELS), tl.float32)
    for k in range(0, share):
        start, offsets, mask = _tile(p * share + k, c, C, S, rows, per_plane, LAST, BLOCK)
        x = tl.load(x_ptr + start + offsets, mask, 0.0).to(tl.float32)
        away = tl.where(mask, x - middle[None, :], 0.0)
        first += away
        second += away * away
        count += _valid(p * share + k, S, rows, per_plane, LAST, BLOCK)
    mean = tl.sum(first, 0) / count
    out = p * C + c
    step = programs * C
    tl.store(part_ptr + out, tl.zeros((CHANNELS,), tl.float32) + count, c < C)
    tl.store(part_ptr + step + out, middle + mean, c < C)
    tl.store(part_ptr + 2 * step + out, tl.maximum(tl.sum(second, 0) - count * mean * mean, 0.0), c < C)


@triton.jit(do_not_specialize=["parts"])
def merge_kernel(
    part_ptr,
    mean_ptr,
    invstd_ptr,
    running_mean_ptr,
    running_var_ptr,
    C,
    parts,
    momentum,
    epsilon,
    PARTS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Mean and 1/sqrt(variance + epsilon) of CHANNELS channels from their partial statistics; moves the running averages."""
    c = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    count = tl.zeros((CHANNELS,), tl.float64)
    mean = tl.zeros((CHANNELS,), tl.float64)
    for first in range(0, parts, PARTS):
        p = first + tl.arange(0, PARTS)
        offsets = p[:, None] * C + c[None, :]
        mask = (p < parts)[:, None] & (c < C)[None, :]
        n = tl.load(part_ptr + offsets, mask, 0.0).to(tl.float64)
        m = tl.load(part_ptr + parts * C + offsets, mask, 0.0).to(tl.float64)
        count += tl.sum(n, 0)
        mean += tl.sum(n * m, 0)
    count = tl.where(c < C, count, 2.0)
    mean = mean / count
    square = tl.zeros((CHANNELS,), tl.float64)
    for first in range(0, parts, PARTS):
        p = first + tl.arange(0, PARTS)
        offsets = p[:, None] * C + c[None, :]
        mask = (p < parts)[:, None] & (c < C)[None, :]
        n = tl.load(part_ptr + offsets, mask, 0.0).to(tl.float64)
        m = tl.load(part_ptr + parts * C + offsets, mask, 0.0).to(tl.float64)
        s = tl.load(part_ptr + 2 * parts * C + offsets, mask, 0.0).to(tl.float64)
        away = m - mean[None, :]
        square += tl.sum(s + n * away * away, 0)
    tl.store(mean_ptr + c, mean.to(tl.float32), c < C)
    tl.store(invstd_ptr + c, (1.0 / tl.sqrt(square / count + epsilon)).to(tl.float32), c < C)
    old_mean = tl.load(running_mean_ptr + c, c < C, 0.0).to(tl.float64)
    old_var = tl.load(running_var_ptr + c, c < C, 0.0).to(tl.float64)
    new_mean = old_mean + momentum * (mean - old_mean)
    new_var = old_var + momentum * (square / (count - 1) - old_var)
    tl.store(running_mean_ptr + c, new_mean.to(running_mean_ptr.dtype.element_ty), c < C)
    tl.store(running_var_ptr + c, new_var.to(running_var_ptr.dtype.element_ty), c < C)


@triton.jit
def _channel(weight_ptr, bias_ptr, mean_ptr, invstd_ptr, c, C):
    mean = tl.load(mean_ptr + c, c < C, 0.0).to(tl.float32)
    scale = tl.load(invstd_ptr + c, c < C, 0.0).to(tl.float32) * tl.load(weight_ptr + c, c < C, 0.0).to(tl.float32)
    bias = tl.load(bias_ptr + c, c < C, 0.0).to(tl.float32)
    return mean[None, :], scale[None, :], bias[None, :]


@triton.jit(do_not_specialize=["rows", "per_plane"])
def apply_kernel(
    x_ptr,
    y_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    invstd_ptr,
    C,
    S,
    rows,
    per_plane,
    ACT: tl.constexpr,
    LAST: tl.constexpr,
    BLOCK: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """y = act((x - mean) · scale + bias), a tile a program."""
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    start, offsets, mask = _tile(tl.program_id(0), c, C, S, rows, per_plane, LAST, BLOCK)
    mean, scale, bias = _channel(weight_ptr, bias_ptr, mean_ptr, invstd_ptr, c, C)
    x = tl.load(x_ptr + start + offsets, mask, 0.0).to(tl.float32)
    y = _value((x - mean) * scale + bias, ACT)
    tl.store(y_ptr + start + offsets, y.to(y_ptr.dtype.element_ty), mask)


@triton.jit(do_not_specialize=["rows", "per_plane", "share"])
def reduce_kernel(
    dy_ptr,
    x_ptr,
    part_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    invstd_ptr,
    C,
    S,
    rows,
    per_plane,
    share,
    ACT: tl.constexpr,
    LAST: tl.constexpr,
    BLOCK: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """part (2, programs, C): the sums of dz = dy · act'(z) and of dz · (x - mean) over ``share`` tiles."""
    p, programs = tl.program_id(0), tl.num_programs(0)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    mean, scale, bias = _channel(weight_ptr, bias_ptr, mean_ptr, invstd_ptr, c, C)
    first = tl.zeros((BLOCK, CHANNELS), tl.float32)
    second = tl.zeros((BLOCK, CHANNELS), tl.float32)
    for k in range(0, share):
        start, offsets, mask = _tile(p * share + k, c, C, S, rows, per_plane, LAST, BLOCK)
        centred = tl.load(x_ptr + start + offsets, mask, 0.0).to(tl.float32) - mean
        dy = tl.load(dy_ptr + start + offsets, mask, 0.0).to(tl.float32)
        dz = dy * _slope(centred * scale + bias, ACT)  # outside the mask dy is 0
        first += dz
        second += dz * centred
    out = p * C + c
    tl.store(part_ptr + out, tl.sum(first, 0), c < C)
    tl.store(part_ptr + programs * C + out, tl.sum(second, 0), c < C)


@triton.jit(do_not_specialize=["rows", "per_plane"])
def input_gradient_kernel(
    dy_ptr,
    x_ptr,
    dx_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    invstd_ptr,
    shares_ptr,
    C,
    S,
    rows,
    per_plane,
    ACT: tl.constexpr,
    LAST: tl.constexpr,
    BLOCK: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """dx = scale · (dz - shares[0] - (x - mean) · shares[1]), a tile a program."""
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    start, offsets, mask = _tile(tl.program_id(0), c, C, S, rows, per_plane, LAST, BLOCK)
    mean, scale, bias = _channel(weight_ptr, bias_ptr, mean_ptr, invstd_ptr, c, C)
    first = tl.load(shares_ptr + c, c < C, 0.0)[None, :]
    second = tl.load(shares_ptr + C + c, c < C, 0.0)[None, :]
    centred = tl.load(x_ptr + start + offsets, mask, 0.0).to(tl.float32) - mean
    dy = tl.load(dy_ptr + start + offsets, mask, 0.0).to(tl.float32)
    dz = dy * _slope(centred * scale + bias, ACT)
    dx = scale * (dz - first - centred * second)
    tl.store(dx_ptr + start + offsets, dx.to(dx_ptr.dtype.element_ty), mask)


@triton.jit
def value_kernel(x_ptr, y_ptr, count, ACT: tl.constexpr, BLOCK: tl.constexpr):
    """y = act(x) over ``count`` values; y may be x."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i, i < count, 0.0).to(tl.float32)
    tl.store(y_ptr + i, _value(x, ACT).to(y_ptr.dtype.element_ty), i < count)


@triton.jit
def slope_kernel(dy_ptr, x_ptr, dx_ptr, count, ACT: tl.constexpr, BLOCK: tl.constexpr):
    """dx = dy · act'(x) over ``count`` values."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i, i < count, 0.0).to(tl.float32)
    dy = tl.load(dy_ptr + i, i < count, 0.0).to(tl.float32)
    tl.store(dx_ptr + i, (dy * _slope(x, ACT)).to(dx_ptr.dtype.element_ty), i < count)


class Tiles:
    """How a dense (outer, C, inner) tensor is cut into tiles, and a reduction over them into programs."""

    def __init__(self, x: Tensor) -> None:
        outer, self.channels, self.inner = x.shape
        self.last = self.inner == 1
        if self.last:
            self.width = min(64, triton.next_power_of_2(self.channels))
            self.block = TILE // self.width
            self.per_plane, self.count = 1, triton.cdiv(outer, self.block)
        else:
            self.width = 1
            self.block = 1024 if self.inner >= 1024 else 256 if self.inner >= 128 else 64
            self.per_plane = triton.cdiv(self.inner, self.block)
            self.count = outer * self.per_plane
        self.rows = outer
        self.columns = triton.cdiv(self.channels, self.width)
        self.share = triton.cdiv(self.count, max(1, PROGRAMS // self.columns))
        self.programs = triton.cdiv(self.count, self.share)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        return self.channels, self.inner, self.rows, self.per_plane

    @property
    def shape(self) -> dict[str, int | bool]:
        return {"LAST": self.last, "BLOCK": self.block, "CHANNELS": self.width}


def _on(x: Tensor) -> AbstractContextManager:
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()  # Triton launches on the current device


def partial_statistics(x: Tensor) -> Tensor:
    """(3, programs, C) float32: count, mean and squared sum of each program's part of ``x`` (outer, C, inner)."""
    tiles = Tiles(x)
    part = torch.empty(3, tiles.programs, tiles.channels, device=x.device)
    with _on(x):
        grid = (tiles.programs, tiles.columns)
        statistics_kernel[grid](x, part, *tiles.sizes, tiles.share, **tiles.shape)
    return part


def statistics(x: Tensor, running_mean: Tensor, running_var: Tensor, momentum: float, epsilon: float) -> tuple[Tensor, Tensor]:
    """Mean and invstd (C,) float32 of ``x`` (outer, C, inner); moves the running averages."""
    part = partial_statistics(x)
    _, parts, channels = part.shape
    mean, invstd = (torch.empty(channels, device=x.device) for _ in range(2))
    with _on(x):
        merge_kernel[(triton.cdiv(channels, 32),)](
            part, mean, invstd, running_mean, running_var, channels, parts, momentum, epsilon, PARTS=64, CHANNELS=32
        )
    return mean, invstd


def apply(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, invstd: Tensor, act: str) -> Tensor:
    """``formulas.apply`` in one pass."""
    tiles, y = Tiles(x), torch.empty_like(x)
    with _on(x):
        grid = (tiles.count, tiles.columns)
        apply_kernel[grid](x, y, weight, bias, mean, invstd, *tiles.sizes, ACT=act, **tiles.shape)
    return y


def reduce(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, invstd: Tensor, act: str) -> Tensor:
    """``formulas.reduce`` in one pass."""
    tiles = Tiles(x)
    part = torch.empty(2, tiles.programs, tiles.channels, device=x.device)
    with _on(x):
        grid = (tiles.programs, tiles.columns)
        channels = (weight, bias, mean, invstd)
        reduce_kernel[grid](dy, x, part, *channels, *tiles.sizes, tiles.share, ACT=act, **tiles.shape)
    return part.sum(1)


def input_gradient(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, invstd: Tensor, shares: Tensor, act: str
) -> Tensor:
    """``formulas.input_gradient`` in one pass."""
    tiles, dx = Tiles(x), torch.empty_like(x)
    with _on(x):
        grid = (tiles.count, tiles.columns)
        channels = (weight, bias, mean, invstd, shares)
        input_gradient_kernel[grid](dy, x, dx, *channels, *tiles.sizes, ACT=act, **tiles.shape)
    return dx


def value(x: Tensor, act: str, out: Tensor | None = None) -> Tensor:
    """act(x) for a dense ``x``, in ``out`` (which may be ``x``) or a new tensor of its layout."""
    y = torch.empty_like(x) if out is None else out
    with _on(x):
        value_kernel[(triton.cdiv(x.numel(), TILE),)](x, y, x.numel(), ACT=act, BLOCK=TILE)
    return y


def slope(dy: Tensor, x: Tensor, act: str) -> Tensor:
    """dy · act'(x) for a dense ``x`` and a ``dy`` of its layout."""
    dx = torch.empty_like(x)
    with _on(x):
        slope_kernel[(triton.cdiv(x.numel(), TILE),)](dy, x, dx, x.numel(), ACT=act, BLOCK=TILE)
    return dx
