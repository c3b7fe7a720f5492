"""Official weights by their SHA-1, and what to know before quoting an AP of theirs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class KnownWeights:
    """A published file: its name, size in bytes, SHA-1 and whether its training images overlap with COCO's val2017."""

    name: str
    size: int
    sha1: str
    saw_val2017: bool


KNOWN = (
    # SHA-1: opencv_extra testdata/dnn/download_models.py. Trained on Darknet's trainvalno5k list of 2014's images
    KnownWeights(name="yolov4.weights", size=257_717_640, sha1="0143deb6c46fcc7f74dd35bf3c14edc3784e99ee", saw_val2017=True),
)


def known_weights(path: str | Path) -> KnownWeights | None:
    """The published file that ``path`` is, by content; only files of a known size are read."""
    size = Path(path).stat().st_size
    candidates = [known for known in KNOWN if known.size == size]
    if not candidates:
        return None
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha1").hexdigest() if hasattr(hashlib, "file_digest") else _sha1(file.read())
    return next((known for known in candidates if known.sha1 == digest), None)


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()  # Python 3.10 has no file_digest
