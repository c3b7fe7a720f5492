"""Zip archives of data sets, unpacked whole or not at all, and into their own folder alone."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from yolomish.errors import YolomishError
from yolomish.files import PARTIAL

MOST_FILES = 1_000_000
MOST_RATIO = 100  # bytes out of one byte in: DEFLATE reaches 1,032, COCO's annotations 5
NOISE = ("__MACOSX/", ".DS_Store")  # what one system adds to every archive


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the files that ``archive`` holds under its own ``folder``.name to ``folder``, which appears when it is whole.

    Every file's CRC is checked. YolomishError for an archive that is damaged, encrypted, holds anything outside that folder,
    links, more than ``MOST_FILES`` files or ``MOST_RATIO`` times its own size, or does not fit on the disk; nothing is left.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _members(opened, archive, folder.name)
            temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}{PARTIAL}", dir=folder.parent))
            try:
                for member in members:
                    _write(opened, member, temporary / member.filename)
                os.replace(temporary / folder.name, folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise YolomishError(f"{archive} is damaged or no zip archive ({error}): delete it and fetch it again") from None
    except OSError as error:
        raise YolomishError(f"{archive} cannot be unpacked to {folder}: {error.strerror or error}") from None


def _members(opened: zipfile.ZipFile, archive: Path, top: str) -> list[zipfile.ZipInfo]:
    """The archive's files, each looked at before a byte is written."""
    members = [member for member in opened.infolist() if not member.is_dir()]
    members = [m for m in members if not (m.filename.startswith(NOISE[0]) or PurePosixPath(m.filename).name == NOISE[1])]
    if not members or len(members) > MOST_FILES:
        raise YolomishError(f"{archive} holds {len(members):,} files, between 1 and {MOST_FILES:,} expected")
    for member in members:
        name, parts = member.filename, PurePosixPath(member.filename).parts
        if len(parts) < 2 or parts[0] != top or ".." in parts or "\\" in name or ":" in name:
            raise YolomishError(f"{archive} holds {name[:80]!r}, which lies outside its folder {top}: it is not unpacked")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise YolomishError(f"{archive} holds the link {name[:80]!r}: it is not unpacked")
        if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise YolomishError(f"{archive} is encrypted or not compressed by DEFLATE: it is not unpacked")
    size, packed = sum(member.file_size for member in members), archive.stat().st_size
    if size > MOST_RATIO * packed:
        raise YolomishError(f"{archive} would grow from {packed:,} to {size:,} bytes, a zip bomb: it is not unpacked")
    free = shutil.disk_usage(archive.parent).free
    if size > free:
        raise YolomishError(f"{archive} needs {size / 1e9:.1f} GB unpacked, {free / 1e9:.1f} GB are free: make room")
    return members


def _write(opened: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with opened.open(member) as source, path.open("xb") as target:
        shutil.copyfileobj(source, target, 1 << 20)  # no more than the stated size comes out, then the CRC is compared
