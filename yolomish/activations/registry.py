"""The registry: a name gives a new module. A registered thing is a module class or a function Tensor -> Tensor."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from yolomish.errors import YolomishError, unknown_name

F = TypeVar("F", bound=Callable[..., Any])

_MAKERS: dict[str, Callable[..., Any]] = {}


class FunctionActivation(nn.Module):
    """A function Tensor -> Tensor of equal shape as a module without parameters."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return getattr(self.function, "__name__", "function")


def register_activation(*names: str) -> Callable[[F], F]:
    """Decorator: make a module class (built without arguments) or a function known under each of ``names``."""

    def register(thing: F) -> F:
        for name in names:
            if name in _MAKERS and _MAKERS[name] is not thing:
                raise YolomishError(f"activation {name!r} is already registered: choose another name")
            _MAKERS[name] = thing
        return thing

    return register


def activation_names() -> list[str]:
    """All known names, those of installed entry points included, sorted."""
    return sorted({*_MAKERS, *(point.name for point in entry_points(group="yolomish.activations"))})


def _from_file(name: str) -> Callable[..., Any]:
    file, _, attribute = name.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise YolomishError(f"activation file {file} does not exist (asked for by {name!r})")
    spec = importlib.util.spec_from_file_location(f"yolomish_activation_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = dict(_MAKERS)
    try:
        spec.loader.exec_module(module)
        thing = _MAKERS.get(attribute) if attribute in _MAKERS.keys() - before.keys() else getattr(module, attribute, None)
    except Exception as error:
        raise YolomishError(f"{file} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        _MAKERS.clear()
        _MAKERS.update(before)
    if thing is None:
        raise YolomishError(f"{file} has no {attribute!r}")
    return thing


def _maker(name: str) -> Callable[..., Any]:
    if ".py:" in name:
        return _from_file(name)
    if name in _MAKERS:
        return _MAKERS[name]
    for point in entry_points(group="yolomish.activations"):
        if point.name == name:
            return point.load()
    raise unknown_name("activation", name, activation_names())


def build_activation(name: str) -> nn.Module:
    """A new module for a registered name or ``file.py:name``: any shape in, the same shape and dtype out.

    YolomishError on an unknown name (with the nearest), a missing file, or a thing that is not callable.
    """
    maker: Any = _maker(name)
    if inspect.isclass(maker) and issubclass(maker, nn.Module):
        return maker()
    if not callable(maker):
        raise YolomishError(f"activation {name!r} is a {type(maker).__name__}, not a function or nn.Module class")
    return FunctionActivation(maker)


def describe_activation(name: str) -> str:
    """The first line of the docstring of an activation."""
    return (inspect.getdoc(_maker(name)) or "").split("\n")[0]
