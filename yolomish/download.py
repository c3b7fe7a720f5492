"""Downloads that survive a cut connection, a full disk and a login page: what arrives under the final name is whole."""

from __future__ import annotations

import errno
import http.client
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, ClassVar

from tqdm import tqdm

from yolomish import __version__
from yolomish.errors import YolomishError
from yolomish.files import digest

BLOCK = 1 << 18
TIMEOUT_S = 15
ATTEMPTS = 5  # in a row without a byte of progress
PAUSE_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Download:
    """A file on the web: ``size`` in bytes (0: as its server says), ``sha1`` where its publisher or a second source states it
    (else empty).

    ``ELSEWHERE`` tells how to choose another folder, ``INSTEAD`` what needs no download.
    """

    file: str
    url: str
    size: int = 0
    sha1: str = ""
    ELSEWHERE: ClassVar[str]
    INSTEAD: ClassVar[str]


def fetch(wanted: Download, path: Path) -> None:
    """Download ``wanted`` to ``path`` (its folder is made), going on where an earlier attempt stopped.

    ``path`` appears only when size and checksum are right; until then the bytes are in ``path``.part, and two processes
    that fetch the same file take turns. YolomishError, saying what to do, on anything else.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "ab") as file, _alone(file):
            if os.fstat(file.fileno()).st_nlink == 0:  # removed by the process that was waited for
                return fetch(wanted, path)
            if path.is_file():  # another process was first
                part.unlink(missing_ok=True)
                return
            try:
                if not wanted.size:
                    wanted = replace(wanted, size=_offered(wanted, path))
                _fetch_into(file, part, wanted, path)
            finally:
                if os.fstat(file.fileno()).st_size == 0:
                    with suppress(OSError):  # Windows removes no open file
                        part.unlink(missing_ok=True)
    except OSError as error:
        raise YolomishError(_write_failure(error, wanted, path)) from None


def _fetch_into(file: IO[bytes], part: Path, wanted: Download, path: Path) -> None:
    if file.tell() > wanted.size:
        _cut(file, 0)
    _check_space(wanted, path.parent, file.tell())
    print(f"fetching {wanted.file} ({wanted.size / 1e6:.1f} MB) from {wanted.url} to {path.parent}", file=sys.stderr)
    with tqdm(
        total=wanted.size, initial=file.tell(), unit="B", unit_scale=True, desc=wanted.file, disable=None, file=sys.stderr
    ) as bar:
        _complete(wanted, file, path, bar)
    file.flush()
    os.fsync(file.fileno())
    check_content(part, wanted, keep=False)
    os.replace(part, path)


def check_content(path: Path, wanted: Download, *, keep: bool) -> str:
    """The SHA-256 of ``path``, which must have ``wanted``'s size and its SHA-1 or the SHA-256 pinned before.

    A file that is not what it should be is a YolomishError, and emptied unless ``keep``. The SHA-256 is pinned beside
    the file, in the form that ``sha256sum -c`` reads.
    """
    pin = pin_path(path.with_name(wanted.file))
    pinned = pin.read_text(encoding="ascii", errors="replace").split()[:1] if pin.is_file() else []
    content = digest(path)
    facts = (
        ("bytes", str(content.size), str(wanted.size)),
        ("SHA-1", content.sha1, wanted.sha1),
        ("SHA-256", content.sha256, pinned[0] if pinned and not wanted.sha1 else ""),
    )
    for what, found, expected in facts:
        if expected and found != expected:
            if not keep:
                os.truncate(path, 0)
            end = "delete it to fetch it again" if keep else "it was thrown away; fetch it again, or from another network"
            raise YolomishError(f"{path} is not {wanted.file}: {what} {found}, {expected} expected: {end}")
    try:
        pin.write_text(f"{content.sha256}  {wanted.file}\n", encoding="ascii")
    except OSError:
        pass  # a folder that only others may write: checked anew next time
    return content.sha256


def pin_path(path: Path) -> Path:
    """Where the checksum of a checked file stands."""
    return path.with_name(path.name + ".sha256")


def _complete(wanted: Download, file: IO[bytes], path: Path, bar: tqdm) -> None:
    """Append to ``file`` until it has all bytes, over as many connections as it takes."""
    failures = 0
    while (have := file.tell()) < wanted.size:
        try:
            _receive(wanted, file, bar)
            reason = "the connection ended early"
        except urllib.error.HTTPError as error:
            if error.code == 416 and have:  # the server's file is shorter than what is here
                _cut(file, 0)
            elif error.code < 500 and error.code not in (408, 429):
                raise YolomishError(f"{wanted.url} answers {error.code} {error.reason}: {by_hand(wanted, path)}") from None
            reason = f"the server answers {error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = str(getattr(error, "reason", "") or error or type(error).__name__)
        file.flush()
        failures = 0 if file.tell() > have else failures + 1
        if failures == ATTEMPTS or (failures and file.tell() == 0 and failures == 2):
            kept = f"{file.tell()} of {wanted.size} bytes are kept, run it again to go on; or " if file.tell() else ""
            raise YolomishError(f"{wanted.file} could not be fetched ({reason}): {kept}{by_hand(wanted, path)}")
        if file.tell() < wanted.size:
            time.sleep(PAUSE_S * failures)


def _offered(wanted: Download, path: Path) -> int:
    """The length that the server states for a file of which nothing else does."""
    try:
        with urllib.request.urlopen(_request(wanted), timeout=TIMEOUT_S) as answer:
            _, total = _range(answer)
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        reason = str(getattr(error, "reason", "") or error or type(error).__name__)
        raise YolomishError(f"{wanted.file} could not be fetched ({reason}): {by_hand(wanted, path)}") from None
    if not total:
        raise YolomishError(f"{wanted.url} does not say how long {wanted.file} is: {by_hand(wanted, path)}")
    return total


def _request(wanted: Download) -> urllib.request.Request:
    return urllib.request.Request(wanted.url, headers={"User-Agent": f"yolomish/{__version__}"})


def _receive(wanted: Download, file: IO[bytes], bar: tqdm) -> None:
    """One request for what is missing; bytes are appended as they come."""
    have = file.tell()
    request = _request(wanted)
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        if answer.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
            raise YolomishError(f"{wanted.url} gave a web page instead of {wanted.file}: is there a login or a proxy in between?")
        start, total = _range(answer)
        if total is not None and total != wanted.size:
            raise YolomishError(f"{wanted.url} offers {total} bytes, {wanted.file} has {wanted.size}: it is another file")
        if start != have:  # the server cannot resume
            _cut(file, start)
            bar.reset(total=wanted.size)
        while block := answer.read(BLOCK):
            if file.tell() + len(block) > wanted.size:
                raise YolomishError(f"{wanted.url} sends more than the {wanted.size} bytes of {wanted.file}: it is another file")
            file.write(block)
            bar.update(len(block))


def _range(answer: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Where an answer's bytes begin and how long the whole file is, if it says so."""
    if answer.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if match:
            return int(match[1]), None if match[2] == "*" else int(match[2])
        raise YolomishError(f"{answer.url} answers with a part of the file that it does not name: fetch it by hand")
    length = answer.headers.get("Content-Length")
    return 0, int(length) if length and length.isdecimal() else None


@contextmanager
def _alone(file: IO[bytes]) -> Iterator[None]:
    """Wait until no other process fetches into ``file``; where the system has no such locks, do not wait."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("another process is fetching this file: waiting for it", file=sys.stderr)
        fcntl.flock(file, fcntl.LOCK_EX)
    file.seek(0, os.SEEK_END)
    yield


def _cut(file: IO[bytes], size: int) -> None:
    file.seek(size)
    file.truncate()


def _check_space(wanted: Download, folder: Path, have: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < wanted.size - have:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _write_failure(error: OSError, wanted: Download, path: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"{wanted.file} needs {wanted.size / 1e6:.1f} MB, which do not fit in {path.parent}: make room and run it again "
            f"to go on, or {wanted.ELSEWHERE}"
        )
    return f"{path} cannot be written ({error.strerror or error}): {wanted.ELSEWHERE}"


def by_hand(wanted: Download, path: Path) -> str:
    """What to do without a connection."""
    size = f" ({wanted.size:,} bytes)" if wanted.size else ""
    return f"put {wanted.url}{size} at {path}; {wanted.INSTEAD}"
