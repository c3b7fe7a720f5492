"""An activation from outside is tried on a small tensor before a network is built of it."""

from __future__ import annotations

import torch
from torch import Tensor

from yolomish.activations.record import Activation
from yolomish.errors import YolomishError, first_line

SHAPE = (2, 4, 3, 5)
_known: dict[int, object] = {}  # by id, for not every callable can be hashed


def tried(record: Activation) -> Activation:
    """``record``, whose module takes a (2, 4, 3, 5) tensor to another of its shape and dtype, differentiably, and leaves it as
    it was; YolomishError otherwise. No global chance is spent, and nothing is tried twice."""
    if _known.get(id(record.definition)) is record.definition:
        return record
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.enable_grad():
        x = torch.linspace(-3, 3, 120).view(SHAPE)
        before, leaf = x.clone(), x.clone().requires_grad_()
        try:
            act = record.build()
            y = act(x)
            fault = _fault(y, x, before) or _fault_of_gradient(act(leaf + 0))
        except Exception as error:  # it is the user's code
            fault = f"raises {type(error).__name__}: {first_line(error)}"
    if fault:
        raise YolomishError(f"activation {record.name} {fault}")
    _known[id(record.definition)] = record.definition
    return record


def _fault(y: object, x: Tensor, before: Tensor) -> str:
    if not isinstance(y, Tensor):
        return f"returns a {type(y).__name__}, not a tensor"
    if y.shape != x.shape:
        return f"returns a tensor of shape {tuple(y.shape)} for one of {SHAPE}"
    if y.dtype != x.dtype:
        return f"returns {str(y.dtype).removeprefix('torch.')} for float32: keep the input's dtype"
    return "" if torch.equal(x, before) else "changes its input: write relu(x), not relu_(x)"


def _fault_of_gradient(y: Tensor) -> str:
    if not y.requires_grad:
        return "has no gradient: compute with torch's differentiable operations alone"
    y.sum().backward()
    return ""
