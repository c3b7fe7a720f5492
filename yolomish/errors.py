"""What the user can fix is a ``YolomishError``: one line, exit code 2. Everything else is a bug and keeps its traceback."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable


class YolomishError(Exception):
    """Something that the user can put right; the message names the thing, the value and the way out."""


def first_line(error: object, width: int = 150) -> str:
    """The first line that says something of another program's or library's message, cut at ``width``; for an exception
    without one its type."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)[:width]


class _Short(reprlib.Repr):
    """``repr`` of plain values that never writes more than some lines' worth, nor walks more than it writes."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple, self.maxset = 2, 4, 6, 6, 6
        self.maxstring = self.maxother = 100

    def repr_int(self, x: int, level: int) -> str:
        """A long number as its number of bits: Python refuses to write more than 4,300 digits."""
        return repr(x) if abs(x) < 10**60 else f"a number of {x.bit_length()} bits"


_SHORT = _Short()


def shown(value: object) -> str:
    """``value`` as a message holds it: ``repr`` on one line, and short however large or deep the value is."""
    return " ".join(_SHORT.repr(value).split())[:300]


def unknown_name(kind: str, name: object, known: Iterable[str]) -> YolomishError:
    """The error for a name that is not in a registry, with the nearest match: ``unknown activation 'mihs'; did you ...``."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1) if isinstance(name, str) and len(name) < 100 else []
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    listed = [text if len(text) <= 60 else f"{text[:59]}…" for text in names[:100]]
    rest = f", ... ({len(names)})" if len(names) > len(listed) else ""
    return YolomishError(f"unknown {kind} {shown(name)}{hint} known: {', '.join(listed)}{rest}")
