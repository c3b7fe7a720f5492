"""Folders for results: nothing is ever overwritten."""

from __future__ import annotations

from pathlib import Path

from yolomish.errors import YolomishError


def free_name(path: Path) -> Path:
    """``path``, or ``path-2``, ``path-3``, ... where that exists already."""
    number, candidate = 1, path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def free_folder(path: Path) -> Path:
    """A new folder under ``free_name``; YolomishError where it cannot be made."""
    folder = free_name(path)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise YolomishError(f"{folder} cannot be made: {error.strerror}") from None
    return folder
