"""What the user can fix is a ``YolomishError``: one line, exit code 2. Everything else is a bug and keeps its traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class YolomishError(Exception):
    """Something that the user can put right; the message names the thing, the value and the way out."""


def first_line(error: object, width: int = 150) -> str:
    """The first line that says something of another program's or library's message, cut at ``width``; for an exception
    without one its type."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)[:width]


def unknown_name(kind: str, name: str, known: Iterable[str]) -> YolomishError:
    """The error for a name that is not in a registry, with the nearest match: ``unknown activation 'mihs'; did you ...``."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return YolomishError(f"unknown {kind} {name!r}{hint} known: {', '.join(names)}")
