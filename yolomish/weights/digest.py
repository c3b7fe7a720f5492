"""Checksums of a file, read once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

BLOCK = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Digest:
    """Size in bytes and checksums in hexadecimal."""

    size: int
    sha1: str
    sha256: str


def digest(path: Path) -> Digest:
    """The digest of a file; OSError where it cannot be read."""
    sha1, sha256, size = hashlib.sha1(usedforsecurity=False), hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            sha1.update(block)
            sha256.update(block)
            size += len(block)
    return Digest(size=size, sha1=sha1.hexdigest(), sha256=sha256.hexdigest())
