"""The registry: a name stands for one ``Activation``. Own ones come from a file (``my.py:name``) or an installed package."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import nn

from yolomish.activations.record import Activation
from yolomish.activations.standard import STANDARD
from yolomish.errors import YolomishError, first_line, shown, unknown_name
from yolomish.trust import require_trust, sha256_of

F = TypeVar("F", bound=Callable[..., Any])

_RECORDS: dict[str, Activation] = {name: record for record in STANDARD for name in (record.name, *record.aliases)}
_registered: ContextVar[dict[str, Activation]] = ContextVar("registered", default=_RECORDS)  # a file's own while it runs
_tried: dict[int, Callable[..., object]] = {}  # by id, for not every callable can be hashed
_one_file = threading.RLock()  # a file may ask for an activation of another


def _own(name: str, thing: Any, aliases: tuple[str, ...] = ()) -> Activation:
    """The record of an activation from outside, which has no faster forms."""
    if not callable(thing):
        raise YolomishError(f"activation {name!r} is a {type(thing).__name__}, not a function or nn.Module class")
    description = (inspect.getdoc(thing) or "").split("\n")[0]
    return Activation(name=name, aliases=aliases, definition=thing, description=description)


def _try(definition: Callable[..., object], name: str) -> None:
    """YolomishError where an activation from outside cannot be built, fails on a tensor, or returns another shape or dtype."""
    if _tried.get(id(definition)) is definition:
        return
    x = torch.linspace(-3, 3, 96, device="cpu").view(2, 3, 4, 4)
    try:
        with torch.device("cpu"), torch.random.fork_rng(devices=[]), torch.no_grad():
            y = Activation(name=name, definition=definition, description="").build()(x.clone())
    except Exception as error:  # the user's code raises what it likes
        raise YolomishError(f"activation {name!r} fails on a tensor: {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(y, torch.Tensor):
        raise YolomishError(f"activation {name!r} returns a {type(y).__name__}, not a tensor")
    if (y.shape, y.dtype, y.device) != (x.shape, x.dtype, x.device):
        given, found = (f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')} on {t.device}" for t in (x, y))
        raise YolomishError(f"activation {name!r} returns {found} for {given}: it must keep shape, dtype and device")
    _tried[id(definition)] = definition


def register_activation(*names: str) -> Callable[[F], F]:
    """Decorator: make a module class (built without arguments) or a function Tensor -> Tensor known under ``names``.

    In a file that is itself named as ``file.py:name`` they are known to that name alone. YolomishError on a name in use.
    """

    def register(thing: F) -> F:
        record, known = _own(names[0], thing, names[1:]), _registered.get()
        for name in names:
            taken = known.get(name) or _RECORDS.get(name)
            if taken is not None and taken.definition is not thing:
                raise YolomishError(f"activation {name!r} is already registered: choose another name")
            known[name] = record
        return thing

    return register


def activation_names() -> list[str]:
    """All known names, those of installed entry points included, sorted."""
    return sorted({*_RECORDS, *(point.name for point in entry_points(group="yolomish.activations"))})


@cache
def _execute(path: Path, source: bytes) -> tuple[ModuleType, dict[str, Activation]]:
    """The module of a file with this content and what it registered, executed once per process."""
    digest = hashlib.sha256(str(path).encode() + source).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(f"yolomish_activation_{path.stem}_{digest}", path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    token = _registered.set({})
    sys.modules[spec.name] = module  # dataclasses and torch.compile look a definition's module up
    try:
        with torch.device("cpu"):  # whatever device the network is being built on: its constants serve every later one
            exec(compile(source, str(path), "exec"), module.__dict__)  # not by the loader, whose bytecode can be older
        return module, _registered.get()
    except BaseException:
        del sys.modules[spec.name]
        raise
    finally:
        _registered.reset(token)


def _from_file(name: str) -> Activation:
    file, _, attribute = name.rpartition(":")
    path = Path(file)
    try:
        source = path.read_bytes()
    except FileNotFoundError:
        raise YolomishError(f"activation file {shown(file)} does not exist (asked for by {shown(name)})") from None
    except (OSError, ValueError) as error:  # ValueError: NUL in the name
        raise YolomishError(f"activation file {shown(file)} cannot be read: {first_line(error)}") from None
    require_trust(sha256_of(source), file, "a Python file", "name it by --act, or pass --trust,")
    try:
        with _one_file:
            module, registered = _execute(path.resolve(), source)
    except Exception as error:
        raise YolomishError(f"{file} cannot be imported: {type(error).__name__}: {first_line(error)}") from error
    if attribute in registered:
        record = replace(registered[attribute], name=name, aliases=())
    elif hasattr(module, attribute):
        record = _own(name, getattr(module, attribute))
    else:
        raise YolomishError(f"{file} has no {attribute!r}")
    _try(record.definition, name)
    return record


def find_activation(name: str) -> Activation:
    """The record of a name, an alias or ``file.py:name``; a file is executed once per content.

    YolomishError on an unknown name (with the nearest), a file that is missing or that nobody has trusted (see
    ``yolomish.trust``), or a thing that is no activation: Tensor -> Tensor of equal shape and dtype.
    """
    if ".py:" in name:
        return _from_file(name)
    if name not in _RECORDS:
        point = next((p for p in entry_points(group="yolomish.activations") if p.name == name), None)
        if point is None:
            raise unknown_name("activation", name, activation_names())
        record = _own(name, point.load())
        _try(record.definition, name)
        _RECORDS[name] = record
    return _RECORDS[name]


def build_activation(name: str) -> nn.Module:
    """A new module of ``find_activation(name)``: any shape in, the same shape and dtype out; its errors."""
    return find_activation(name).build()


def darknet_activations() -> dict[str, Activation]:
    """The activations of Darknet's cfg files by the names that they have there (src/activations.c get_activation)."""
    return {record.darknet: record for record in _RECORDS.values() if record.darknet}
