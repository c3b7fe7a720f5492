"""Files of code that the user lets run: activation files and exported programs, by the SHA-256 of what is in them.

Nothing that is merely opened (a checkpoint, a YAML, a cfg, an exported file) can let another file run.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from yolomish.errors import YolomishError
from yolomish.files import digest, read_lines

GIVEN = "YOLOMISH_TRUSTED"  # checksums by commas; what this process trusts reaches the processes that it starts so
HELP = "Run the code that the weights name or hold (an activation file, TorchScript, torch.export), now and later."
_asked = {"trusting": False}


def store() -> Path:
    """The file of trusted checksums: ``trusted`` in $YOLOMISH_CONFIG, else in yolomish in the user's configuration folder."""
    folder = os.environ.get("YOLOMISH_CONFIG")
    if not folder:
        home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        folder = str(Path(home) / "yolomish")
    return Path(folder) / "trusted"


@contextmanager
def trusting() -> Iterator[None]:
    """Meanwhile, whatever file of code is met is trusted and remembered: the user has said ``--trust``."""
    before, _asked["trusting"] = _asked["trusting"], True
    try:
        yield
    finally:
        _asked["trusting"] = before


def is_trusting() -> bool:
    """Whether the user has said ``--trust``."""
    return _asked["trusting"]


def trust_file(path: str | Path) -> None:
    """Let a file's present content run, in this process and, where the store can be written, in later ones too.

    YolomishError where it cannot be read.
    """
    _remember(digest(path).sha256, path)


def require_trust(sha256: str, path: str | Path, what: str, way: str) -> None:
    """YolomishError unless the content of ``path``, with this SHA-256, may run; ``what`` it is and the ``way`` to let it."""
    if sha256 in os.environ.get(GIVEN, "").split(",") or sha256 in _stored():
        return
    if not is_trusting():
        raise YolomishError(f"{path} is {what}, and would run as you with all your rights: {way} if you trust it")
    _remember(sha256, path)


def _stored() -> set[str]:
    try:
        return {line.split()[0] for line in read_lines(store()) if line.strip()}
    except YolomishError:  # there is none
        return set()


def _remember(sha256: str, path: str | Path) -> None:
    given = [text for text in os.environ.get(GIVEN, "").split(",") if text]
    os.environ[GIVEN] = ",".join(dict.fromkeys((*given, sha256)))
    if sha256 in _stored():
        return
    with suppress(OSError):  # a home that cannot be written: trusted in this process and those that it starts
        store().parent.mkdir(parents=True, exist_ok=True)
        with store().open("a", encoding="utf-8") as file:
            file.write(f"{sha256}  {os.path.abspath(path)!a}\n")


def sha256_of(content: bytes) -> str:
    """The checksum by which content is trusted."""
    return hashlib.sha256(content).hexdigest()
