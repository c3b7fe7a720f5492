"""Where frames come from: live streams, the web, odd lists; and that nothing piles up on the way."""

import gc
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from yolomish.data.images import write_image
from yolomish.errors import YolomishError
from yolomish.inference import sources as sources_module
from yolomish.inference import video
from yolomish.inference.outputs import OutputChoice, Outputs
from yolomish.inference.run import read_ahead
from yolomish.inference.sources import Failure, Frame, Source, expand_sources, read_frames
from yolomish.types import Detections


def kinds(*names: object) -> list[tuple[str, str]]:
    return [(Path(s.name).name, s.kind) for s in expand_sources([str(n) for n in names])]


def test_each_kind_of_source_is_told_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "B.JPG", "c.mp4", "noise.txt.bak", "[x].png", "list"):
        (tmp_path / name).write_bytes(b"?")
    (tmp_path / "sub.jpg").mkdir()
    (tmp_path / "sub.jpg" / "d.webp").write_bytes(b"?")
    assert kinds(".") == [("B.JPG", "image"), ("[x].png", "image"), ("a.png", "image"), ("c.mp4", "video")]
    assert kinds("sub.jpg") == [("d.webp", "image")]
    assert kinds("[x].png", "list") == [("[x].png", "image"), ("list", "image")]  # files win over their patterns
    assert kinds("**/*.webp", "a.png", "./a.png") == [("d.webp", "image"), ("a.png", "image")]
    assert [k for _, k in kinds("0", "rtsp://host/x", "-", "http://h/a.JPG?x=1", "https://h/live")] == [
        "live",
        "live",
        "stdin",
        "web image",
        "web",
    ]
    (tmp_path / "l.txt").write_text("\ufeff# pictures\na.png\n\nsub.jpg/d.webp\nhttp://h/b.png\ngone.png\n", encoding="utf-8")
    assert kinds("l.txt") == [("a.png", "image"), ("d.webp", "image"), ("b.png", "web image"), ("gone.png", "image")]
    (tmp_path / "l.txt").write_text("# none\n")
    with pytest.raises(YolomishError, match=r"list l\.txt is empty"):
        expand_sources(["l.txt"])
    (tmp_path / "l.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(YolomishError, match=r"l\.txt is not a UTF-8 text file"):
        expand_sources(["l.txt"])


class Camera:
    """Stands for a capture that gives a frame every 10 ms, whether or not one takes it; its pixels are its number."""

    def __init__(self, frames: int) -> None:
        self.frames, self.given = frames, 0

    def isOpened(self) -> bool:
        return self.frames >= 0

    def get(self, _: int) -> float:
        return 0.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        time.sleep(0.01)
        if self.given == self.frames:
            return False, None
        self.given += 1
        return True, np.full((4, 4, 3), self.given - 1, np.uint8)

    def release(self) -> None:
        self.frames = -1


def test_a_slow_reader_of_a_live_stream_sees_the_newest_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = Camera(60)
    monkeypatch.setattr(cv2, "VideoCapture", lambda name: camera)
    seen = []
    for frame in read_frames(expand_sources(["0"])):
        assert isinstance(frame, Frame) and frame.number == frame.image[0, 0, 0] and frame.fps == video.USUAL_FPS
        assert camera.given - frame.number <= 3  # not one from long ago
        seen.append(frame.number)
        time.sleep(0.1)
    assert seen == sorted(set(seen)) and 3 <= len(seen) < 20 and seen[-1] == 59
    assert camera.frames == -1  # released


def test_a_live_stream_that_is_not_there_or_falls_silent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda name: Camera(-1))
    assert list(read_frames(expand_sources(["3"]))) == [Failure(name="3", reason="camera 3 cannot be opened")]
    silent = threading.Event()
    camera = Camera(5)
    camera.read = lambda: (silent.wait(5), None)  # type: ignore[method-assign]
    monkeypatch.setattr(cv2, "VideoCapture", lambda name: camera)
    monkeypatch.setattr(video, "NO_FRAME_S", 0.2)
    (failure,) = read_frames(expand_sources(["rtsp://host/x"]))
    silent.set()
    assert isinstance(failure, Failure) and failure.reason == "rtsp://host/x gave no frame for 0 s"


def mjpeg(frames: int) -> bytes:
    """JPEGs one after another, as motion-JPEG cameras and ffmpeg write them."""
    return b"".join(cv2.imencode(".jpg", np.full((48, 64, 3), 20 * i, np.uint8))[1].tobytes() for i in range(frames))


def video_file(path: Path, codec: str, frames: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25, (64, 48))
    for i in range(frames):
        writer.write(np.full((48, 64, 3), i * 12, np.uint8))
    writer.release()
    return path


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    write_image(tmp_path / "x.png", np.full((5, 7, 3), 200, np.uint8))
    picture = (tmp_path / "x.png").read_bytes()
    answers = {
        "/x.png": (200, "image/png", picture),
        "/page.png": (200, "text/html", b"<html>"),
        "/gone.png": (404, "text/html", b""),
        "/photo?id=7": (200, "image/png; charset=binary", picture),
        "/page": (200, "text/html; charset=utf-8", b"<html>"),
        "/gone": (404, "text/plain", b""),
        "/clip": (200, "video/mp2t", video_file(tmp_path / "v.ts", "mp4v", 20).read_bytes()),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = answers[self.path]
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_pictures_come_from_the_web_and_what_is_none_is_named(web: str) -> None:
    found = list(read_frames(expand_sources([f"{web}/x.png", f"{web}/page.png", f"{web}/gone.png", "http://127.0.0.1:9/x.jpg"])))
    assert isinstance(found[0], Frame) and found[0].image.shape == (5, 7, 3)
    reasons = [f.reason for f in found[1:] if isinstance(f, Failure)]
    for reason, expected in zip(reasons, ("page.png is not an image", "answers 404", "cannot be fetched"), strict=True):
        assert expected in reason


def test_a_url_without_a_suffix_is_what_the_server_calls_it(web: str) -> None:
    picture, page, gone, nobody, *clip = read_frames(
        expand_sources([f"{web}/photo?id=7", f"{web}/page", f"{web}/gone", "http://127.0.0.1:9/x", f"{web}/clip"])
    )
    assert isinstance(picture, Frame) and picture.image.shape == (5, 7, 3) and picture.number is None
    for failure, expected in ((page, "is a web page"), (gone, "answers 404 Not Found"), (nobody, "cannot be fetched")):
        assert isinstance(failure, Failure) and expected in failure.reason
    assert [frame.number for frame in clip if isinstance(frame, Frame)] == list(range(20))


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mts", "mp4v"), ("M2TS", "mp4v"), ("asf", "mp4v"), ("vob", "MPG1"), ("ogv", "VP80")]
)
def test_videos_of_cameras_and_discs_are_read_whole(suffix: str, codec: str, tmp_path: Path) -> None:
    found = list(read_frames(expand_sources([str(video_file(tmp_path / f"v.{suffix}", codec, 20))])))
    assert [frame.number for frame in found if isinstance(frame, Frame)] == list(range(20)) and len(found) == 20


def test_a_raw_h264_stream_is_read_whole(tmp_path: Path) -> None:
    """Three grey frames of 128 x 96, written as bytes by the standard (ITU-T H.264): every macroblock is I_PCM."""
    sps, pps = bytes.fromhex("000000016742000af841a2"), bytes.fromhex("0000000168ce3880")
    stream, luma = sps + pps, (50, 120, 200)
    for y in luma:
        block = bytes([y] * 256 + [128] * 128)  # 16 x 16 of Y, 8 x 8 of Cb and of Cr
        stream += bytes.fromhex("0000000105888421a0") + b"\x0d\x00".join([block] * 48) + b"\x80"
    (tmp_path / "camera.h264").write_bytes(stream)
    frames = list(read_frames(expand_sources([str(tmp_path / "camera.h264")])))
    assert [frame.image.shape for frame in frames if isinstance(frame, Frame)] == [(96, 128, 3)] * 3
    for frame, y in zip(frames, luma, strict=True):
        assert isinstance(frame, Frame) and frame.number is not None
        assert abs(frame.image.astype(int) - round((y - 16) * 255 / 219)).max() <= 2  # BT.601's range


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no device files")
def test_a_device_file_is_a_camera_and_no_picture() -> None:
    assert expand_sources(["/dev/null"]) == [Source(name="/dev/null", kind="live")]
    (failure,) = read_frames(expand_sources(["/dev/null"]))
    assert isinstance(failure, Failure) and "/dev/null" in failure.reason and "image" not in failure.reason


def test_motion_jpeg_is_a_video_and_not_its_first_picture(tmp_path: Path) -> None:
    (tmp_path / "v.mjpeg").write_bytes(mjpeg(5))
    means = [round(f.image.mean()) for f in read_frames(expand_sources([str(tmp_path / "v.mjpeg")])) if isinstance(f, Frame)]
    assert means == [0, 20, 40, 60, 80]


def test_what_a_folder_holds_besides_is_counted_and_heic_is_told_how(tmp_path: Path) -> None:
    for name in ("a.jfif", "b.JPE", "c.HEIC", "d.heic", "e.md", "noise", ".DS_Store"):
        (tmp_path / name).write_bytes(b"?")
    lines: list[str] = []
    assert [Path(s.name).name for s in expand_sources([str(tmp_path)], lines.append)] == ["a.jfif", "b.JPE"]
    (line,) = lines
    assert "4 files left out" in line and "(2 .heic, 1 .md, 1 without a suffix)" in line and "mogrify -format jpg" in line
    for name in ("a.jfif", "b.JPE"):
        (tmp_path / name).unlink()
    with pytest.raises(YolomishError, match=r"holds no images or videos.*; 4 files left out.*mogrify"):
        expand_sources([str(tmp_path)])
    (tmp_path / "c.HEIC").write_bytes(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(99))
    (failure,) = read_frames(expand_sources([str(tmp_path / "c.HEIC")]))
    assert isinstance(failure, Failure) and "c.HEIC is a HEIC picture" in failure.reason


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_holds_a_pictures_bytes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    raw = cv2.imencode(".png", np.arange(60, dtype=np.uint8).reshape(4, 5, 3))[1].tobytes()
    feeder = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(raw,), daemon=True)
    feeder.start()
    (frame,) = read_frames(expand_sources([str(tmp_path / "pipe")]))
    feeder.join(5)
    assert isinstance(frame, Frame) and (frame.image[..., ::-1].ravel() == np.arange(60)).all()


def test_frames_are_freed_as_they_are_done_with(tmp_path: Path) -> None:
    none = Detections(boxes=torch.zeros(0, 4), scores=torch.zeros(0), labels=torch.zeros(0).long())
    alive: list[weakref.ref] = []
    choice = OutputChoice(pictures=True, json=True, csv=True, txt=True)
    with Outputs(tmp_path, ["a"], choice) as outputs:
        for i in range(50):
            image = np.full((48, 64, 3), i, np.uint8)
            alive.append(weakref.ref(image))
            outputs.add(Frame(name="v.mp4", image=image, number=i, fps=10.0), none)
            del image
    gc.collect()
    assert sum(ref() is not None for ref in alive) == 0
    assert len(list((tmp_path / "labels").iterdir())) == 50 and (tmp_path / "v.mp4").stat().st_size > 500


def test_a_huge_download_is_not_taken_whole(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources_module, "MAX_DOWNLOAD", 20)
    (failure,) = read_frames(expand_sources([f"{web}/x.png"]))
    assert isinstance(failure, Failure) and "is not an image" in failure.reason


def test_reading_ahead_changes_neither_order_nor_failures_and_stops_with_its_reader() -> None:
    read = []

    def frames() -> Iterator[Frame | Failure]:
        for i in range(9):
            read.append(i)
            yield Failure(name=str(i), reason="bad") if i == 4 else Frame(name=str(i), image=np.zeros((1, 1, 3), np.uint8))

    assert [item.name for item in read_ahead(frames())] == [str(i) for i in range(9)]
    read.clear()
    for item in read_ahead(frames()):
        if item.name == "2":
            break
    assert read in ([0, 1, 2], [0, 1, 2, 3])  # one ahead, and no more

    def broken() -> Iterator[Frame | Failure]:
        yield Failure(name="0", reason="bad")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(read_ahead(broken()))
