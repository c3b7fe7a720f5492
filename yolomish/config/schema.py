"""Plain values to frozen dataclasses and back: types, bounds and choices stand beside the fields and are checked here.

``Annotated[float, Between(0, 1)]`` bounds a number, ``Literal`` lists choices; YAML states only what differs from the
defaults, and an unknown key is refused with the nearest match.
"""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import yaml

from yolomish.errors import YolomishError, shown, unknown_name
from yolomish.files import write_text

T = TypeVar("T")


@dataclass(frozen=True)
class Between:
    """A number from ``low`` to ``high``, both included unless said."""

    low: float
    high: float = math.inf
    without_low: bool = False
    without_high: bool = False

    def fault(self, value: float) -> str:
        """What ``value`` must be, empty where it is that."""
        above = value > self.low if self.without_low else value >= self.low
        below = value < self.high if self.without_high else value <= self.high
        if above and below and value < math.inf:  # false for NaN
            return ""
        if self.high < math.inf and not (self.without_low or self.without_high):
            return f"between {self.low:g} and {self.high:g}"
        low = f"{'over' if self.without_low else 'at least'} {self.low:g}"
        if self.low == 0:
            low = "positive" if self.without_low else "not negative"
        return low if self.high == math.inf else f"{low} and {'under' if self.without_high else 'at most'} {self.high:g}"


SHARE = Between(0, 1)
NOT_NEGATIVE = Between(0)
POSITIVE = Between(0, without_low=True)
COUNT = Between(1)


class _MayChange:
    """Marks a field that decides no result: it may differ between a run and its resumption."""


ODD = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")  # NUL and lone surrogates, but those for bytes of a file's name
MAY_CHANGE = _MayChange()


class _Size:
    """Marks (height, width): one number stands for a square, and so it is written."""


SIZE = _Size()
_HINTS: dict[type, dict[str, Any]] = {}
ImageSize = Annotated[tuple[int, int], SIZE]


def hints(kind: type) -> dict[str, Any]:
    """The fields' types of a dataclass, annotations included."""
    if kind not in _HINTS:
        _HINTS[kind] = typing.get_type_hints(kind, include_extras=True)
    return _HINTS[kind]


def _marks(hint: Any) -> tuple[Any, ...]:
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()


def marked(kind: type, mark: object) -> frozenset[str]:
    """The names of a dataclass's fields that carry ``mark``."""
    return frozenset(name for name, hint in hints(kind).items() if mark in _marks(hint))


MOST_CLASSES = 100_000
MOST_PX = 1 << 14  # of a network's side


def parse_size(value: Any, where: str) -> tuple[int, int]:
    """(height, width) from 416, ``416x608`` or [416, 608]; YolomishError for anything else."""
    parts: Any = value.lower().split("x") if isinstance(value, str) else value
    if isinstance(parts, list | tuple) and len(parts) > 2:
        parts = []
    if isinstance(parts, int | float) and not isinstance(parts, bool):
        parts = [parts]
    try:
        sides = [int(str(side)) for side in parts]
    except (TypeError, ValueError):
        sides = []
    if len(sides) not in (1, 2) or any(not 1 <= side <= MOST_PX for side in sides):
        raise YolomishError(
            f"{where} must be px such as 416, or height x width such as 416x608, at most {MOST_PX}, not {shown(value)}"
        )
    return sides[0], sides[-1]


def _convert(value: Any, hint: Any, where: str) -> Any:
    marks = _marks(hint)
    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if SIZE in marks:
        return parse_size(value, where)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise YolomishError(f"{where} must be a mapping, not {shown(value)}")
        return from_dict(typing.cast(type, kind), value, where)
    if get_origin(kind) is Literal:
        return "off" if value is False else _convert(value, str, where)  # YAML reads off as false
    if get_origin(kind) is UnionType:  # one text, or a list of them
        return _convert(value, tuple[str, ...] if isinstance(value, list | tuple) else str, where)
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise YolomishError(f"{where} must be a list, not {shown(value)}")
        inner = get_args(kind)
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(_convert(v, inner[0], f"{where}[{i}]") for i, v in enumerate(value))
        if len(value) != len(inner):
            raise YolomishError(f"{where} must have {len(inner)} values, not {len(value)}: {shown(value)}")
        return tuple(_convert(v, k, f"{where}[{i}]") for i, (v, k) in enumerate(zip(value, inner, strict=True)))
    if kind is bool:
        if isinstance(value, bool):
            return value
    elif kind in (int, float):
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            try:
                number = float(value)  # YAML reads 1e-3 as a string
                if math.isfinite(number) and (kind is float or number.is_integer()):
                    return kind(number)
            except (ValueError, OverflowError):
                pass
    elif kind is str and isinstance(value, str | int | float | None) and not (isinstance(value, int) and abs(value) > 1 << 200):
        text = "" if value is None else str(value)
        if not ODD.search(text):
            return text
        raise YolomishError(f"{where} holds a character that no name or path can have: {shown(value)}")
    raise YolomishError(f"{where} must be {kind.__name__}, not {shown(value)}")


def from_dict(kind: type[T], values: dict[str, Any], where: str = "configuration") -> T:
    """A dataclass from plain values, converted to the fields' types; unknown keys and wrong types are YolomishErrors."""
    known = hints(kind)
    if not isinstance(values, dict):
        raise YolomishError(f"{where} must be a mapping, not {shown(values)}")
    for key in values:
        if not isinstance(key, str) or key not in known:
            raise unknown_name(f"key in {where}", key, known)
    return kind(**{k: _convert(v, known[k], f"{where}.{k}") for k, v in values.items()})


def check_fields(config: Any) -> None:
    """YolomishError for the first field, of nested dataclasses too, whose value is out of its bounds or choices."""
    for name, hint in hints(type(config)).items():
        value = getattr(config, name)
        kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if dataclasses.is_dataclass(value):
            check_fields(value)
        elif get_origin(kind) is Literal and value not in get_args(kind):
            raise unknown_name(name, value, get_args(kind))
        for mark in _marks(hint):
            if isinstance(mark, Between) and (fault := mark.fault(value)):
                raise YolomishError(f"{name} must be {fault}, not {shown(value)}")


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain dicts, lists, numbers and strings, ready for YAML or JSON."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return to_dict(value)
        return [plain(v) for v in value] if isinstance(value, list | tuple) else value

    found = {name: plain(getattr(config, name)) for name in hints(type(config))}
    for name in marked(type(config), SIZE):
        height, width = found[name]
        found[name] = height if height == width else [height, width]
    return found


def save_yaml(config: Any, path: str | Path) -> None:
    """Write a dataclass as YAML, whole or not at all."""
    write_text(path, yaml.safe_dump(to_dict(config), sort_keys=False))


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key, such as ``model.activation``."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return found


def config_difference(a: Any, b: Any) -> dict[str, tuple[Any, Any]]:
    """Every setting in which two configurations differ, by dotted key: ``{"model.activation": ("mish", "relu")}``."""
    left, right = flat(to_dict(a)), flat(to_dict(b))
    return {k: (left.get(k), right.get(k)) for k in sorted({*left, *right}) if left.get(k) != right.get(k)}
