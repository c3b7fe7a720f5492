"""The class names that Darknet keeps beside a cfg: a ``.names`` file, or the one that ``obj.data`` points to."""

from __future__ import annotations

from pathlib import Path

from yolomish.errors import YolomishError
from yolomish.files import read_text


def read_names(path: Path) -> tuple[str, ...]:
    """The names in a file, one a line, in UTF-8 or as it comes; empty lines at the end are none."""
    return tuple(line.strip() for line in read_text(path, other="latin-1").rstrip().splitlines())


def names_beside(path: str | Path, count: int) -> tuple[str, ...]:
    """The ``count`` class names beside a cfg or weights file; empty where there are none.

    ``x.names`` beside ``x.cfg`` must have as many; else the first that fits of what the folder's ``.data`` files name and its
    other ``.names``.
    """
    path = Path(path)
    own = path.with_suffix(".names")
    if own.is_file():
        names = read_names(own)
        if len(names) != count:
            raise YolomishError(f"{own} holds {len(names)} names, {path.name} has {count} classes: correct or remove it")
        return names
    named = []
    for data in sorted(path.parent.glob("*.data")):
        for line in read_text(data, other="latin-1").splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "names":  # Darknet counts its paths from where it is started
                named += [path.parent / value.strip(), path.parent / Path(value.strip()).name, Path(value.strip())]
    for file in (*named, *sorted(path.parent.glob("*.names"))):
        if file.is_file() and len(names := read_names(file)) == count:
            return names
    return ()
