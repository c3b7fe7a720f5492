"""Lean memory: block outputs are not kept for backward but recomputed from the convolution's output.

Autograd hands every tensor that an operation saves to a hook. A tensor that we know how to recompute is saved as its
``Recipe``; the next convolution's input, an output of BN + activation, then costs nothing. Sums and concatenations of
such outputs are recomputed too (``derived``), up to ``MAX_DEPTH`` steps from a kept tensor.

The keeper belongs to the thread that runs the forward pass. Recipes hold all they need: backward may run in any thread.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

MAX_DEPTH = 3  # every fourth residual sum is kept: recomputing grows with the square of a chain's length


class Recipe:
    """How to recompute a tensor: a function and its inputs, tensors or recipes."""

    def __init__(self, function: Callable[..., Tensor], inputs: tuple[Tensor | Recipe, ...], depth: int = 0) -> None:
        self.function, self.depth = function, depth
        self.inputs = tuple(i.detach() if isinstance(i, Tensor) else i for i in inputs)
        self.versions = tuple(i._version if isinstance(i, Tensor) else 0 for i in self.inputs)
        self.made: weakref.ref[Tensor] | None = None

    def tensor(self) -> Tensor:
        """The tensor, recomputed unless somebody still holds the last one. RuntimeError where an input was written to."""
        made = self.made() if self.made else None
        if made is not None:
            return made
        for i, version in zip(self.inputs, self.versions, strict=True):
            if isinstance(i, Tensor) and i._version != version:
                raise RuntimeError("a tensor needed to recompute an activation was modified in place before backward")
        with torch.no_grad():
            made = self.function(*(i.tensor() if isinstance(i, Recipe) else i for i in self.inputs))
        self.made = weakref.ref(made)
        return made


class Keeper:
    """The recipes of one forward pass, found by the storage of the tensors that they make."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[StorageWeakRef, tuple[Any, ...], Recipe]] = {}

    @staticmethod
    def _identity(t: Tensor) -> tuple[Any, ...]:
        return t.storage_offset(), tuple(t.shape), t.stride(), t.dtype, t._version

    def remember(self, t: Tensor, recipe: Recipe) -> None:
        """``recipe`` makes ``t``."""
        reference = StorageWeakRef(t.untyped_storage())  # while it lives no other storage can have its address
        self._known[reference.cdata] = reference, self._identity(t), recipe

    def find(self, t: Tensor) -> Recipe | None:
        """The recipe of exactly this tensor, not written to since."""
        known = self._known.get(t.untyped_storage()._cdata)
        return known[2] if known and known[1] == self._identity(t) else None

    def pack(self, t: Tensor) -> Tensor | Recipe:
        """What to save for backward."""
        return self.find(t) or t

    @staticmethod
    def unpack(saved: Tensor | Recipe) -> Tensor:
        """The saved tensor."""
        return saved.tensor() if isinstance(saved, Recipe) else saved


_keeper: ContextVar[Keeper | None] = ContextVar("keeper", default=None)


def active_keeper() -> Keeper | None:
    """The keeper of the forward pass that runs; none in normal memory or without gradients."""
    return None if torch.compiler.is_compiling() or not torch.is_grad_enabled() else _keeper.get()


@contextmanager
def lean_memory(on: bool = True) -> Iterator[Keeper | None]:
    """Forward passes of this thread inside save recipes instead of block outputs, where ``on``; nothing under torch.compile."""
    if not on:
        yield None
        return
    keeper = Keeper()
    token = _keeper.set(keeper)
    try:
        with torch.autograd.graph.saved_tensors_hooks(keeper.pack, keeper.unpack):
            yield keeper
    finally:
        _keeper.reset(token)


def derived(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """function(*inputs), a cheap one without a state; in lean memory recomputed where an input is."""
    y = function(*inputs)
    if keeper := active_keeper():
        recipes = [keeper.find(x) for x in inputs]
        depth = 1 + max((r.depth for r in recipes if r), default=MAX_DEPTH)
        if depth <= MAX_DEPTH:
            keeper.remember(y, Recipe(function, tuple(r or x for r, x in zip(recipes, inputs, strict=True)), depth))
    return y
