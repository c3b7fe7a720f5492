"""Whatever pictures come from, as one stream of frames: files, folders, globs, lists, videos, cameras, URLs, stdin."""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Literal
from urllib.parse import urlsplit

import numpy as np

from yolomish.data.images import HEIC_ADVICE, SUFFIXES, decode_image, read_image
from yolomish.errors import YolomishError, first_line
from yolomish.files import read_lines, shown_path

if TYPE_CHECKING:
    from http.client import HTTPResponse

IMAGE_SUFFIXES = SUFFIXES | {".avif", ".gif", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm", ".dib"}
VIDEO_SUFFIXES = set(
    ".mp4 .avi .mov .mkv .webm .m4v .mpg .mpeg .m2v .vob .wmv .asf .ts .mts .m2ts .flv .3gp .3g2 .ogv .mxf .mjpeg .mjpg "
    ".h264 .264 .h265 .265 .hevc".split()
)
HEIC_SUFFIXES = {".heic", ".heif"}
LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "udp", "rtp", "tcp", "srt")
MAX_DOWNLOAD = 1 << 28  # bytes of one picture from the web
TIMEOUT_S = 15

Kind = Literal["image", "web image", "web", "video", "live", "stdin"]  # "web": the server says what it is


@dataclass(frozen=True, kw_only=True)
class Source:
    """One thing to read: ``name`` is its path, URL, camera index or ``-``."""

    name: str
    kind: Kind


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A picture (H, W, 3) uint8 RGB. ``number`` counts a video's frames from 0 and is None for an image; ``fps`` likewise."""

    name: str
    image: np.ndarray
    number: int | None = None
    fps: float | None = None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A source that could not be read, or not to its end, and why, in one line that names it."""

    name: str
    reason: str


def expand_sources(sources: Sequence[str], log: Callable[[str], None] = lambda line: None) -> list[Source]:
    """What is meant, in order, each once.

    An existing file is itself (a ``.txt`` is a list, one source per line), a folder stands for its images and videos, sorted, a
    number or a device (``/dev/video0``) is a camera, ``-`` is stdin, anything else with a wildcard is a glob. YolomishError
    where nothing is meant. ``log`` gets a line on each folder with files that are neither images nor videos by their names.
    """
    found: list[Source] = []
    for name in sources:
        path, scheme = Path(name), _scheme(name)
        if name == "-":
            found.append(Source(name=name, kind="stdin"))
        elif os.path.isdir(name):
            files = sorted(p for p in path.iterdir() if p.is_file())
            inside = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES]
            rest = _left_out(files)
            if not inside:
                what = f"holds no images or videos ({', '.join(sorted(IMAGE_SUFFIXES))}, ...)"
                raise YolomishError(f"folder {shown_path(name)} {what}{rest and f'; {rest}'}")
            if rest:
                log(f"folder {shown_path(name)}: {rest}")
            found += map(_file, inside)
        elif path.suffix.lower() == ".txt" and os.path.isfile(name):
            found += _list(path)
        elif os.path.exists(name):
            found.append(_file(path))
        elif name.isdecimal():
            found.append(Source(name=name, kind="live"))
        elif scheme in LIVE_SCHEMES:
            found.append(Source(name=name, kind="live"))
        elif scheme in ("http", "https"):
            picture = PurePosixPath(urlsplit(name).path).suffix.lower() in IMAGE_SUFFIXES
            found.append(Source(name=name, kind="web image" if picture else "web"))
        else:
            matches = sorted(Path(p) for p in ([] if "\0" in name else glob.glob(name, recursive=True)) if os.path.isfile(p))
            if not matches:
                raise YolomishError(f"no such file, folder or glob match: {shown_path(name)}")
            found += map(_file, matches)
    return list(dict.fromkeys(found))


def _left_out(files: Sequence[Path]) -> str:
    """How many of a folder's files are neither images nor videos, the commonest suffixes, and what to do; empty for none."""
    suffixes = [path.suffix.lower() for path in files if not path.name.startswith(".")]
    counts = Counter(suffix for suffix in suffixes if suffix not in IMAGE_SUFFIXES | VIDEO_SUFFIXES)
    if not counts:
        return ""
    kinds = [f"{n} {first_line(suffix, 20) if suffix else 'without a suffix'}" for suffix, n in counts.most_common(5)]
    listed = ", ".join(kinds + ["..."] * (len(counts) > 5))
    advice = f"; {HEIC_ADVICE}" if HEIC_SUFFIXES & set(counts) else ""
    return f"{counts.total()} files left out, which are no images or videos by their names ({listed}){advice}"


def _scheme(name: str) -> str:
    try:
        return urlsplit(name).scheme.lower()
    except ValueError:  # such as http://[
        return ""


def _file(path: Path) -> Source:
    if path.is_char_device():  # a camera, such as /dev/video0
        return Source(name=str(path), kind="live")
    return Source(name=str(path), kind="video" if path.suffix.lower() in VIDEO_SUFFIXES else "image")


def _list(path: Path) -> list[Source]:
    """A line is a path from the list's folder, or else from the working folder; lines that begin with # are left out."""
    lines = [line.strip() for line in read_lines(path) if line.strip() and not line.startswith("#")]
    if not lines:
        raise YolomishError(f"the list {path} is empty")
    return [_listed(line, path.parent) for line in lines]


def _listed(line: str, folder: Path) -> Source:
    if "://" in line:
        return expand_sources([line])[0]
    return _file(folder / line if os.path.isfile(folder / line) else Path(line))


def read_frames(sources: Sequence[Source], *, vid_stride: int = 1, stdin: BinaryIO | None = None) -> Iterator[Frame | Failure]:
    """The frames of all sources, one after another, read as they are asked for; every ``vid_stride``-th of a video.

    What cannot be read is a Failure, and the rest goes on.
    """
    from yolomish.inference.video import live_frames

    for source in sources:
        try:
            if source.kind == "image":
                yield Frame(name=source.name, image=read_image(source.name))
            elif source.kind == "stdin":
                if stdin is None and sys.stdin is None:
                    raise YolomishError("stdin is closed: pipe an image into it, or paths, one a line")
                yield from _stdin_frames(stdin or sys.stdin.buffer)
            elif source.kind in ("web", "web image"):
                yield from _web_frames(source.name, vid_stride, picture=source.kind == "web image")
            elif source.kind == "video":
                yield from _video(source.name, vid_stride)
            else:
                for number, image, fps in live_frames(source.name, vid_stride):
                    yield Frame(name=source.name, image=image, number=number, fps=fps)
        except YolomishError as error:
            yield Failure(name=source.name, reason=str(error))


def _stdin_frames(stdin: BinaryIO) -> Iterator[Frame | Failure]:
    """One image's bytes, or paths, one a line, taken as they come."""
    start = stdin.readline(4096)
    text = b"\0" not in start
    try:
        start.decode("utf-8")
    except UnicodeDecodeError:
        text = False
    if not text:
        yield Frame(name="stdin", image=decode_image(np.frombuffer(start + stdin.read(), np.uint8), "stdin"))
        return
    empty, line = True, start
    while line:
        name = line.decode("utf-8", errors="surrogateescape").strip()
        if name:
            empty = False
            yield from read_frames([_listed(name, Path())])
        line = stdin.readline()
    if empty:
        raise YolomishError("stdin is empty: pipe an image into it, or paths, one a line")


def _video(name: str, stride: int) -> Iterator[Frame]:
    from yolomish.inference.video import video_frames

    for number, image, fps in video_frames(name, stride):
        yield Frame(name=name, image=image, number=number, fps=fps)


def _web_frames(url: str, stride: int, *, picture: bool) -> Iterator[Frame]:
    """What stands at a URL: a picture by its name (``picture``) or its Content-Type, else what OpenCV makes of it."""
    kind, raw, unreached = "", b"", None
    try:
        with _answer(url) as answer:
            kind = answer.headers.get_content_type()
            picture = picture or kind.startswith("image/")
            raw = answer.read(MAX_DOWNLOAD) if picture else b""
    except _Unreached as error:
        if picture:
            raise
        unreached = error  # OpenCV may get there: by a name and password in the URL, or past a certificate of one's own
    if picture:
        yield Frame(name=url, image=decode_image(np.frombuffer(raw, np.uint8), url))
    elif kind in ("text/html", "application/xhtml+xml"):
        raise YolomishError(f"{url} is a web page, not a picture or video: name the picture's own address")
    else:
        seen = False
        try:
            for frame in _video(url, stride):
                seen = True
                yield frame
        except YolomishError:
            if seen or unreached is None:
                raise
            raise unreached from None


class _Unreached(YolomishError):
    """A server that gives no answer that Python understands."""


@contextmanager
def _answer(url: str) -> Iterator[HTTPResponse]:
    """The server's answer; YolomishError for 404 and its like, ``_Unreached`` for none."""
    import http.client
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"User-Agent": "yolomish"}), timeout=TIMEOUT_S) as answer:
            yield answer
    except urllib.error.HTTPError as error:
        raise YolomishError(f"{url} answers {error.code} {error.reason}") from None
    except (http.client.HTTPException, OSError, UnicodeError) as error:  # a host of over 63 letters is the last
        raise _Unreached(f"{url} cannot be fetched: {getattr(error, 'reason', error)}") from None
