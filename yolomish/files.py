"""Files: where they go, written whole or not at all, read as text, and told apart by their content."""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolomish.errors import YolomishError

PARTIAL = "-part-"
BLOCK = 1 << 22


def cache_folder() -> Path:
    """The folder of files that can be recomputed: $YOLOMISH_CACHE, else yolomish in the user's cache folder."""
    return Path(os.environ.get("YOLOMISH_CACHE") or Path.home() / ".cache" / "yolomish")


def replace_file(path: str | Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a new file beside ``path``, sync it to disk and put it in ``path``'s place in one move.

    A full disk or a folder that cannot be written is a YolomishError; what was at ``path`` is then untouched.
    """
    path = Path(path)
    temporary = Path()
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}{PARTIAL}", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes 0600
        os.replace(temporary, path)
    except OSError as error:
        raise YolomishError(f"{path} cannot be written: {error.strerror or error}; what was there is intact") from None
    except RuntimeError as error:  # torch.save reports a full disk so
        if "PytorchStreamWriter" not in str(error) and "inline_container" not in str(error):
            raise
        raise YolomishError(f"{path} cannot be written: is the disk full? What was there is intact") from None
    finally:
        if temporary != Path():
            temporary.unlink(missing_ok=True)


def clear_partial_files(folder: Path) -> None:
    """Remove what a killed ``replace_file`` left in ``folder``."""
    for path in folder.glob(f".*{PARTIAL}*"):
        path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all (see ``replace_file``)."""
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: str | Path, content: Any) -> None:
    """Write plain values as JSON, whole or not at all; mappings are indented."""
    write_text(path, json.dumps(content, indent=1 if isinstance(content, dict) else None) + "\n")


def read_text(path: str | Path, *, other: str = "") -> str:
    """A text file in UTF-8, or UTF-16 where its first bytes say so, or in the encoding ``other`` where it is neither;
    YolomishError where it cannot be read."""
    try:
        raw = Path(path).read_bytes()
        return raw.decode("utf-16" if raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig")
    except UnicodeDecodeError as error:
        if other:
            return error.object.decode(other)
        line = error.object[: error.start].count(b"\n") + 1
        fault = f"byte {error.object[error.start]:#x} in line {line}"
        raise YolomishError(f"{path} is not a UTF-8 text file ({fault}): save it as UTF-8") from None
    except (OSError, ValueError) as error:  # ValueError: NUL in the name
        raise YolomishError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def read_lines(path: str | Path) -> list[str]:
    """The lines of a text file; YolomishError where it cannot be read (see ``read_text``)."""
    return read_text(path).splitlines()


def read_names(path: str | Path) -> tuple[str, ...]:
    """The class names in a file, one a line."""
    return tuple(line.strip() for line in read_lines(path) if line.strip())


# What other files begin with, what they are and what to do; those that a model's users hand over by mistake
FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    (b"<!doctype", "a web page: the download went wrong, fetch it again"),
    (b"<html", "a web page: the download went wrong, fetch it again"),
    (b"<?xml", "an XML file: for an OpenVINO model name its .xml, with the .bin beside it"),
    (b"\x89hdf", "an HDF5 file, as Keras writes it: convert it to Darknet's .weights or to ONNX with the program it is from"),
    (b"\x1f\x8b", "a gzip archive: unpack it and name the file inside"),
    (b"ptrt", "a TensorRT engine, which runs on the card that it was made for alone: name the file that it was made from"),
    (b"ftrt", "a TensorRT engine, which runs on the card that it was made for alone: name the file that it was made from"),
)


def foreign_kind(path: str | Path) -> str:
    """What a file of another program is by its content, and what to do with it; empty where that is not known.

    YolomishError where it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise YolomishError(f"{path} cannot be read: {error.strerror}") from None
    if not start:
        return "empty: was the disk full, or the download cut off?"
    if start[4:8] == b"TFL3":
        return "a TensorFlow Lite model: name the file that it was made from"
    if start[8:10] == b'{"':
        return "a safetensors file: load it with the program it is from, and save a torch state_dict or ONNX"
    plain = start.lstrip().lower()
    return next((what for mark, what in FOREIGN if plain.startswith(mark)), "")


@dataclass(frozen=True, kw_only=True)
class Digest:
    """Size in bytes and checksums in hexadecimal."""

    size: int
    sha1: str
    sha256: str


def digest(path: str | Path) -> Digest:
    """The digest of a file, read once; YolomishError where it cannot be read."""
    sha1, sha256, size = hashlib.sha1(usedforsecurity=False), hashlib.sha256(), 0
    try:
        with Path(path).open("rb") as file:
            while block := file.read(BLOCK):
                sha1.update(block)
                sha256.update(block)
                size += len(block)
    except OSError as error:
        raise YolomishError(f"{path} cannot be read: {error.strerror}") from None
    return Digest(size=size, sha1=sha1.hexdigest(), sha256=sha256.hexdigest())


def free_name(path: Path) -> Path:
    """``path``, or ``path-2``, ``path-3``, ... where that exists already."""
    number, candidate = 1, path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def free_folder(path: str | Path) -> Path:
    """A new folder under ``free_name``, so that no result is overwritten; YolomishError where it cannot be made."""
    folder = free_name(Path(path))
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise YolomishError(f"{folder} cannot be made: {error.strerror}") from None
    return folder
