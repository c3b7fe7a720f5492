"""Mish (or another closed form) alone, for layers without batch norm and for folded networks."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from yolomish.kernels import formulas, native
from yolomish.kernels.choice import choose_for, exporting
from yolomish.kernels.norm_act import _steps


def _dense(x: Tensor) -> bool:
    return x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))


# torch.library reads the annotations below: not every torch takes them as text, so they are not postponed here
@torch.library.custom_op("yolomish::activation", mutates_args=())
def activation(x: Tensor, act: str, implementation: str) -> Tensor:
    """act(x) for a dense ``x``."""
    return _steps(implementation).value(x, act)


@activation.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("yolomish::activation_backward", mutates_args=())
def activation_backward(dy: Tensor, x: Tensor, act: str, implementation: str) -> Tensor:
    """dy · act'(x)."""
    return _steps(implementation).slope(dy if dy.stride() == x.stride() else torch.empty_like(x).copy_(dy), x, act)


@activation_backward.register_fake
def _(dy: Tensor, x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.act, ctx.implementation = inputs
    ctx.save_for_backward(*tensors)


def _first(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    return activation_backward(dy, *ctx.saved_tensors, ctx.act, ctx.implementation), None, None


def _second(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        dy, x = (t if t.requires_grad else t.detach().requires_grad_() for t in ctx.saved_tensors)
        first = formulas.slope(dy, x, ctx.act)
        second = torch.autograd.grad(first, (dy, x), gradient, create_graph=again, allow_unused=True, materialize_grads=True)
    return *second, None, None


activation.register_autograd(_first, setup_context=_save)
activation_backward.register_autograd(_second, setup_context=_save)


def _implementation(x: Tensor, act: str) -> str:
    if exporting():
        return "eager"
    implementation = choose_for(x, act)
    if implementation in ("native", "compiled") and torch.compiler.is_compiling():
        return "formula"  # of which the compiler makes a loop of its own
    return implementation if x.numel() and _dense(x) else "eager"


def mish(x: Tensor) -> Tensor:
    """x·tanh(softplus(x)) of any shape, differentiable twice, by whichever implementation is chosen; else ``F.mish``."""
    implementation = _implementation(x, "mish")
    if implementation == "native":
        return native.Mish.apply(x)
    if implementation == "formula":
        return formulas.value(x, "mish")
    return F.mish(x) if implementation == "eager" else activation(x, "mish", implementation)


def mish_(x: Tensor) -> Tensor:
    """``mish`` written into ``x``, which nobody may need any more; where gradients are recorded, torch's ``F.mish``."""
    implementation = _implementation(x, "mish")
    if implementation in ("eager", "formula") or (torch.is_grad_enabled() and x.requires_grad):
        return F.mish(x, inplace=True)
    written = native.value(x, "mish", x) if implementation == "native" else _steps(implementation).value(x, "mish", x)
    torch.autograd.graph.increment_version(x)  # none of them writes by an operator of torch's
    return written
