"""Files, folders and globs as a list of images."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from yolomish.data.datasets import SUFFIXES
from yolomish.errors import YolomishError


def expand_sources(sources: Sequence[str]) -> list[Path]:
    """The files meant, in order, each once: a folder gives its images sorted, a glob its matches, a file itself."""
    found: list[Path] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise YolomishError(f"folder {source} holds no images ({', '.join(sorted(SUFFIXES))})")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            matches = sorted(Path(p) for p in glob.glob(source, recursive=True) if Path(p).is_file())
            if not matches:
                raise YolomishError(f"no such file, folder or glob match: {source}")
            found += matches
    return list(dict.fromkeys(found))
