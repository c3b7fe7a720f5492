"""Batch norm and activation as one operation: it saves the convolution's output alone and works backward from it.

Forward reads the map for its statistics, then once more to write the result: three passes. Backward reads map and gradient
for the sums, then again to write: five. ``mean`` and ``invstd`` enter ``yolomish::norm_act`` as constants; its backward
counts their share where ``training``. A second backward differentiates ``_reference``, which is plain torch.
"""

from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from yolomish.kernels import compiled, formulas, native
from yolomish.kernels.choice import choose_for, exporting
from yolomish.kernels.formulas import CLOSED_FORMS
from yolomish.kernels.lean import Recipe, active_keeper


def _steps(implementation: str) -> ModuleType:
    if implementation == "triton":
        from yolomish.kernels import triton_code

        return triton_code
    return {"compiled": compiled, "native": native}.get(implementation, formulas)


def _flat(x: Tensor) -> Tensor:
    """A dense (B, C, H, W) as (B·H·W, C, 1) in channels_last or (B, C, H·W); no copy."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1], 1) if native.is_rows(x) else x.view(x.shape[0], x.shape[1], -1)


def _shaped(flat: Tensor, x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    return flat.view(b, h, w, c).permute(0, 3, 1, 2) if native.is_rows(x) else flat.view(b, c, h, w)


def _dense(x: Tensor) -> Tensor:
    return x if native.is_rows(x) else x.contiguous()


def _in_layout_of(dy: Tensor, x: Tensor) -> Tensor:
    return dy.contiguous(memory_format=torch.channels_last) if native.is_rows(x) else dy.contiguous()


# torch.library reads the annotations below: not every torch takes them as text, so they are not postponed here
def _statistics(
    x: Tensor, running_mean: Tensor, running_var: Tensor, momentum: float, epsilon: float, act: str, implementation: str
) -> tuple[Tensor, Tensor]:
    """(C,) mean and 1/sqrt(variance + epsilon) of a dense (B, C, H, W); moves the running averages."""
    if implementation == "native":
        return native.running_statistics(x, running_mean, running_var, momentum, epsilon, act)
    flat = _flat(x)
    if implementation == "triton":
        return _steps(implementation).statistics(flat, running_mean, running_var, momentum, epsilon)
    mean, variance = _steps(implementation).statistics(flat)
    count = x.numel() // x.shape[1]
    running_mean.lerp_(mean.to(running_mean.dtype), momentum)
    running_var.lerp_((variance * (count / (count - 1))).to(running_var.dtype), momentum)
    return mean, (variance + epsilon).rsqrt()


norm_statistics = torch.library.custom_op("yolomish::norm_statistics", mutates_args=("running_mean", "running_var"))(_statistics)


@norm_statistics.register_fake
def _(x: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    return x.new_empty(x.shape[1], dtype=wide), x.new_empty(x.shape[1], dtype=wide)


def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    invstd: Tensor,
    epsilon: float,
    act: str,
    training: bool,
    implementation: str,
) -> Tensor:
    """act((x - mean) · invstd · weight + bias) for a dense (B, C, H, W), in its dtype and layout."""
    if implementation == "native":
        return native.apply(x, weight, bias, mean, invstd, act)
    return _shaped(_steps(implementation).apply(_flat(x), weight, bias, mean, invstd, act), x)


norm_act_op = torch.library.custom_op("yolomish::norm_act", mutates_args=())(_forward)


@norm_act_op.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x)


def _backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    invstd: Tensor,
    epsilon: float,
    act: str,
    training: bool,
    implementation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``x``, ``weight`` and ``bias``."""
    dy = _in_layout_of(dy, x)
    if implementation == "native":
        return native.backward(dy, x, weight, bias, mean, invstd, act, training)
    steps = _steps(implementation)
    flat, flat_dy = _flat(x), _flat(dy)
    sums = steps.reduce(flat_dy, flat, weight, bias, mean, invstd, act)
    shares = _shares(sums, invstd, x.numel() // x.shape[1]) if training else torch.zeros_like(sums)
    dx = steps.input_gradient(flat_dy, flat, weight, bias, mean, invstd, shares, act)
    return _shaped(dx, x), (sums[1] * invstd).to(weight.dtype), sums[0].to(bias.dtype, copy=True)


norm_act_backward = torch.library.custom_op("yolomish::norm_act_backward", mutates_args=())(_backward)


def _shares(sums: Tensor, invstd: Tensor, count: int | Tensor) -> Tensor:
    return torch.stack((sums[0] / count, sums[1] / count * invstd * invstd))


@norm_act_backward.register_fake
def _(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    tensors = [i for i in inputs if isinstance(i, Tensor)]
    ctx.save_for_backward(*tensors)
    ctx.rest = inputs[len(tensors) :]


def _first(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    return (*norm_act_backward(dy, *ctx.saved_tensors, *ctx.rest), *(None,) * 6)


norm_act_op.register_autograd(_first, setup_context=_save)


def _reference(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, invstd: Tensor, epsilon: float, act: str, training: bool
) -> Tensor:
    flat = _flat(x)
    if training:
        mean, variance = formulas.statistics(flat)
        invstd = (variance + epsilon).rsqrt()
    return _shaped(formulas.apply(flat, weight, bias, mean, invstd, act), x)


def _second(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
    """Gradients of the first backward's result, by torch's own differentiation."""
    *differentiable, mean, invstd = ctx.saved_tensors
    epsilon, act, training, _ = ctx.rest
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        dy, x, weight, bias = (t if t.requires_grad else t.detach().requires_grad_() for t in differentiable)
        inputs = (x, weight, bias)
        y = _reference(*inputs, mean, invstd, epsilon, act, training)
        first = torch.autograd.grad(y, inputs, dy, create_graph=True)
        second = torch.autograd.grad(
            first, (dy, *inputs), gradients, create_graph=again, allow_unused=True, materialize_grads=True
        )
    return (*second, *(None,) * 6)


norm_act_backward.register_autograd(_second, setup_context=_save)


class _Direct(torch.autograd.Function):
    """``norm_act_op`` without what an operator of ``torch.library`` costs in each call."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        _save(ctx, inputs, None)
        return _forward(*inputs)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():  # the caller wants the gradient's gradient, which the operator has
            return _first(ctx, dy)
        return (*_backward(dy, *ctx.saved_tensors, *ctx.rest), *(None,) * 6)


class _Synchronised(torch.autograd.Function):
    """Training over several processes, as ``nn.SyncBatchNorm``: each process's sums are exchanged, forward and backward."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, bn: nn.SyncBatchNorm, act: str, implementation: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        steps, flat = _steps(implementation), _flat(x)
        count = x.numel() // x.shape[1]
        if implementation == "triton":
            counts, means, squares = steps.partial_statistics(flat).double()
            mean = (counts * means).sum(0) / count
            square = (squares + counts * (means - mean).square()).sum(0)
        else:
            found = native.statistics(flat, act) if implementation == "native" else steps.statistics(flat)
            mean, variance = (v.double() for v in found)
            square = variance * count
        own = torch.cat((mean, square, mean.new_tensor([count])))
        gathered = [torch.empty_like(own) for _ in range(dist.get_world_size(bn.process_group))]
        dist.all_gather(gathered, own, bn.process_group)
        means, squares, counts = torch.stack(gathered).split((len(mean), len(mean), 1), 1)
        total = counts.sum()
        mean = (means * counts).sum(0) / total
        variance = (squares + counts * (means - mean).square()).sum(0) / total
        assert bn.running_mean is not None and bn.running_var is not None and bn.momentum is not None
        bn.running_mean.lerp_(mean.to(bn.running_mean.dtype), bn.momentum)
        bn.running_var.lerp_((variance * total / (total - 1)).to(bn.running_var.dtype), bn.momentum)
        kind = torch.float64 if x.dtype == torch.float64 else torch.float32
        mean, invstd = mean.to(kind), (variance + bn.eps).rsqrt().to(kind)
        ctx.save_for_backward(x, weight, bias, mean, invstd, total)
        ctx.act, ctx.implementation, ctx.group = act, implementation, bn.process_group
        ctx.mark_non_differentiable(mean, invstd)
        return _shaped(steps.apply(flat, weight, bias, mean, invstd, act), x), mean, invstd

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Any, ...]:
        x, weight, bias, mean, invstd, total = ctx.saved_tensors
        steps, channels = _steps(ctx.implementation), (weight, bias, mean, invstd)
        flat, flat_dy = _flat(x), _flat(_in_layout_of(dy, x))
        own = steps.reduce(flat_dy, flat, *channels, ctx.act)
        sums = own.clone()
        dist.all_reduce(sums, group=ctx.group)
        shares = _shares(sums, invstd, total).to(invstd.dtype)
        dx = steps.input_gradient(flat_dy, flat, *channels, shares, ctx.act)
        return _shaped(dx, x), (own[1] * invstd).to(weight.dtype), own[0].to(bias.dtype), None, None, None


def _remember(keeper: Any, y: Tensor, *tensors_and_rest: Any) -> None:
    *tensors, rest = tensors_and_rest
    keeper.remember(y, Recipe(lambda *inputs: norm_act_op(*inputs, *rest), tuple(tensors)))


def _unusual(x: Tensor, bn: nn.Module, act: nn.Module) -> bool:
    """Whether torch's own layers must run: another kind of norm, hooks on the layers, no values or one per channel."""
    return (
        type(bn) not in (nn.BatchNorm2d, nn.SyncBatchNorm)
        or bn.momentum is None
        or bn.weight is None
        or bn.running_mean is None
        or x.dim() != 4
        or x.numel() <= x.shape[1]
        or any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in (bn, act))
    )


def chosen(x: Tensor, bn: nn.Module, act: nn.Module, name: str) -> str:
    """What ``norm_act`` runs for these arguments: eager, triton, compiled or torch (the formulas, for lean memory)."""
    if exporting():
        return "eager"
    implementation = choose_for(x, name, any_size=active_keeper() is not None)
    if implementation == "eager" and name in CLOSED_FORMS and active_keeper():
        implementation = "torch"
    return "eager" if implementation == "eager" or _unusual(x, bn, act) else implementation


def norm_act(x: Tensor, bn: nn.Module, act: nn.Module, name: str) -> Tensor:
    """act(bn(x)) with ``bn``'s mode, parameters and running statistics, by whichever implementation is chosen.

    ``x`` is (B, C, H, W) in any layout; ``name`` is the activation's registered name, ``act`` its module. Returns ``x``'s
    dtype, and its layout where that is contiguous or channels_last.
    """
    implementation = chosen(x, bn, act, name)
    if implementation == "eager":
        return act(bn(x))
    if implementation in ("compiled", "native") and torch.compiler.is_compiling():
        return formulas.value(bn(x), name)  # the compiler fuses these by itself
    assert isinstance(bn, (nn.BatchNorm2d, nn.SyncBatchNorm)) and bn.momentum is not None
    assert bn.running_mean is not None and bn.running_var is not None and bn.num_batches_tracked is not None
    x = _dense(x)
    rest = (bn.eps, name, bn.training, implementation)
    direct = implementation in ("native", "triton") and not torch.compiler.is_compiling()
    if bn.training:
        bn.num_batches_tracked.add_(1)
    if bn.training and isinstance(bn, nn.SyncBatchNorm) and dist.is_initialized() and dist.get_world_size(bn.process_group) > 1:
        y, mean, invstd = _Synchronised.apply(x, bn.weight, bn.bias, bn, name, implementation)
    else:
        if bn.training:
            with torch.no_grad():
                take = _statistics if direct else norm_statistics
                mean, invstd = take(x.detach(), bn.running_mean, bn.running_var, bn.momentum, bn.eps, name, implementation)
        else:
            mean, invstd = bn.running_mean, (bn.running_var + bn.eps).rsqrt()
        y = (_Direct.apply if direct else norm_act_op)(x, bn.weight, bn.bias, mean, invstd, *rest)
    if keeper := active_keeper():
        _remember(keeper, y, x, bn.weight, bn.bias, mean, invstd, rest)
    return y
