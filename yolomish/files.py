"""Files: where they go, written whole or not at all, read as text, and told apart by their content."""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import re
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolomish.errors import YolomishError, first_line

PARTIAL = ".part"  # in the name of what is not whole yet
NAME_BYTES = 255  # that a file's name may have; file systems agree on this
BLOCK = 1 << 22


def cache_folder() -> Path:
    """The folder of files that can be recomputed: $YOLOMISH_CACHE, else yolomish in the user's cache folder."""
    return Path(os.environ.get("YOLOMISH_CACHE") or Path.home() / ".cache" / "yolomish")


def partial_name(path: Path) -> str:
    """How the start of the name of a file is that will become ``path``: hidden, ``.part`` in it, and not too long."""
    return f".{clean_name(path.stem, 60)}{PARTIAL}-"


def replace_file(path: str | Path, write: Callable[[Path], Any], *, sync: bool = True) -> None:
    """Let ``write`` fill a new file beside ``path``, sync it to disk and put it in ``path``'s place in one move.

    A full disk or a folder that cannot be written is a YolomishError; what was at ``path`` is then untouched. Without
    ``sync`` the file is whole for every other process at once, but not safe from a power cut for some seconds.
    """
    path = Path(path)
    temporary = Path()
    try:
        handle, name = tempfile.mkstemp(prefix=partial_name(path), suffix=path.suffix[:16], dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        if sync:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes 0600
        os.replace(temporary, path)
    except (OSError, ValueError) as error:  # ValueError: NUL in the name
        if type(error) is ValueError and "null" not in str(error):
            raise
        raise YolomishError(f"{shown_path(path)} cannot be written: {reason(error)}; what was there is intact") from None
    except RuntimeError as error:  # torch.save reports a full disk so
        if not any(word in str(error) for word in ("PytorchStreamWriter", "inline_container", "iostream")):
            raise
        raise YolomishError(f"{shown_path(path)} cannot be written: is the disk full? What was there is intact") from None
    finally:
        if temporary != Path():
            temporary.unlink(missing_ok=True)


def clear_partial_files(folder: Path) -> None:
    """Remove what a killed ``replace_file`` left in ``folder``."""
    for path in folder.glob(f".*{PARTIAL}-*"):
        if path.is_file():
            path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str, *, sync: bool = True) -> None:
    """Write UTF-8 text, whole or not at all (see ``replace_file``); a name's bytes that are no UTF-8 become ``\\udcff``."""
    replace_file(path, lambda temporary: temporary.write_bytes(text.encode("utf-8", "backslashreplace")), sync=sync)


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
        raise YolomishError(f"{shown_path(path)} is not a UTF-8 text file ({fault}): save it as UTF-8") from None
    except (OSError, ValueError) as error:  # ValueError: NUL in the name
        raise YolomishError(f"{shown_path(path)} cannot be read: {reason(error)}") from None


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
    except (OSError, ValueError) as error:
        raise YolomishError(f"{shown_path(path)} cannot be read: {reason(error)}") from None
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
    except (OSError, ValueError) as error:
        raise YolomishError(f"{shown_path(path)} cannot be read: {reason(error)}") from None
    return Digest(size=size, sha1=sha1.hexdigest(), sha256=sha256.hexdigest())


def reason(error: BaseException) -> str:
    """Why a file could not be read or written, in a few words."""
    return str(getattr(error, "strerror", None) or first_line(error))


def is_there(path: Path) -> bool:
    """Whether there is a file or folder; not where the name is too long, or has NUL."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def shown_path(path: str | Path) -> str:
    """A path as a message holds it: its end where it is long, and what cannot be printed escaped."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(path))
    return text if len(text) <= 200 else f"...{text[-197:]}"


def clean_name(text: str, most: int = 120) -> str:
    """``text`` as a part of a file's name on any system: letters, digits and `` .()+@=,-_``, never empty, hidden or a way
    up, at most ``most`` bytes of UTF-8; what was longer keeps its start."""
    kept = re.sub(r"[^\w .()+@=,-]", "_", unicodedata.normalize("NFC", text))
    kept = kept.encode("utf-8", "replace")[:most].decode("utf-8", "ignore").rstrip(" .")
    return f"_{kept[1:]}" if kept.startswith(".") else kept or "_"


def free_name(path: Path) -> Path:
    """``path``, or ``path-2``, ``path-3``, ... where that exists already."""
    number, candidate = 1, path
    while os.path.lexists(candidate):
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def make_folder(path: str | Path) -> Path:
    """The folder ``path``, made where it is not there; YolomishError where it cannot be."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise YolomishError(f"the folder {shown_path(path)} cannot be made: {reason(error)}; name another") from None
    return Path(path)


def free_folder(path: str | Path) -> Path:
    """A new folder under ``free_name``, this process's alone, so that no result is overwritten; YolomishError where it cannot
    be made, or ``path`` is empty."""
    if Path(path).name in ("", ".."):
        raise YolomishError(f"a new folder must have a name of its own, not {str(path)!r}")
    make_folder(Path(path).parent)
    while True:
        folder = free_name(Path(path))
        try:
            folder.mkdir()
            return folder
        except FileExistsError:  # another process was faster
            continue
        except (OSError, ValueError) as error:
            raise YolomishError(f"the folder {shown_path(folder)} cannot be made: {reason(error)}; name another") from None


def refuse_existing(files: Iterable[Path], force: bool) -> None:
    """YolomishError where a file that would be written is there already, unless by ``force``."""
    if force:
        return
    if there := [shown_path(file) for file in files if os.path.lexists(file)]:
        raise YolomishError(f"{', '.join(there)} exists already: name another file, or --force to overwrite it")


@contextmanager
def holding(folder: Path, what: str) -> Iterator[None]:
    """``folder`` for this process alone; YolomishError where another one has it. ``what`` it is, for the message."""
    from filelock import FileLock, Timeout  # slow to import

    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise YolomishError(
            f"another process is at work on {what} {shown_path(folder)}: wait for it, or choose another"
        ) from None
    except NotImplementedError:  # a file system without locks
        yield
        return
    except OSError as error:
        raise YolomishError(f"{shown_path(folder)} cannot be written: {reason(error)}") from None
    try:
        yield
    finally:
        lock.release()
