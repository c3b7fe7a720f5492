"""The steps of ``formulas`` through torch.compile, once per process for each step, activation, layout and dtype.

Sizes are symbolic, so another image size or number of channels compiles nothing. A compiler that fails is reported once, and
torch takes over.
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor

from yolomish.errors import first_line
from yolomish.kernels import formulas
from yolomish.kernels.choice import compiler_failed


@lru_cache
def _failures() -> tuple[type[Exception], ...]:
    """What a compiler that does not work raises; looked up late, for torch._dynamo is slow to import."""
    from torch._dynamo.exc import TorchDynamoException

    try:
        from torch._inductor.exc import InductorError  # torch 2.7; before it, a TorchDynamoException
    except ImportError:
        return (TorchDynamoException,)
    return TorchDynamoException, InductorError


def _value_in_place(x: Tensor, act: str) -> Tensor:
    return x.copy_(formulas.value(x, act))


@cache
def _compiled(function: Any, *key: Any) -> Callable[..., Any]:
    # Its own code object: torch.compile counts recompilations per code object, and gives up after eight
    code = function.__code__.replace(co_name="_".join(str(k) for k in (function.__name__, *key)))
    return torch.compile(types.FunctionType(code, function.__globals__), dynamic=True)


def _run(function: Any, x: Tensor, arguments: tuple[Any, ...], act: str = "") -> Any:
    layout = "flat" if x.dim() == 1 else "rows" if x.shape[2] == 1 else "planes"
    # Not as views: torch.compile would replay how each was made of its base, with the number of channels as a constant
    arguments = tuple(a.data if isinstance(a, Tensor) else a for a in arguments)
    arguments = (*arguments, act) if act else arguments
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        try:
            return _compiled(function, act, layout, x.dtype)(*arguments)
        except _failures() as error:
            reason = f"torch.compile failed: {first_line(error)}"
            compiler_failed(x.device.type, reason)
            warnings.warn(f"{reason}; torch's own layers take over", stacklevel=2)
            return function(*arguments)


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """``formulas.statistics``."""
    return _run(formulas.statistics, x, (x,))


def apply(x: Tensor, *channels_and_act: Any) -> Tensor:
    """``formulas.apply``."""
    return _run(formulas.apply, x, (x, *channels_and_act[:-1]), channels_and_act[-1])


def reduce(dy: Tensor, x: Tensor, *channels_and_act: Any) -> Tensor:
    """``formulas.reduce``."""
    return _run(formulas.reduce, x, (dy, x, *channels_and_act[:-1]), channels_and_act[-1])


def input_gradient(dy: Tensor, x: Tensor, *channels_and_act: Any) -> Tensor:
    """``formulas.input_gradient``."""
    return _run(formulas.input_gradient, x, (dy, x, *channels_and_act[:-1]), channels_and_act[-1])


def _flat(x: Tensor) -> Tensor:
    return x.as_strided((x.numel(),), (1,))


def value(x: Tensor, act: str, out: Tensor | None = None) -> Tensor:
    """act(x) for a dense ``x``, in ``out``, which can only be ``x`` itself, or a new tensor of its layout."""
    if out is not None:
        _run(_value_in_place, _flat(x), (_flat(x),), act)
        return x
    return _run(formulas.value, _flat(x), (_flat(x),), act).as_strided(x.shape, x.stride())


def slope(dy: Tensor, x: Tensor, act: str) -> Tensor:
    """dy · act'(x) for a dense ``x`` and a ``dy`` of its layout."""
    return _run(formulas.slope, _flat(x), (_flat(dy), _flat(x)), act).as_strided(x.shape, x.stride())
