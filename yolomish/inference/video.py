"""Videos, cameras and streams by OpenCV: frames in, annotated frames out, a handful in memory at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from yolomish.errors import YolomishError
from yolomish.files import PARTIAL, reason

USUAL_FPS = 25.0  # where a stream states none
NO_FRAME_S = 15.0


def _open(name: str) -> tuple[cv2.VideoCapture, float]:
    """The capture, and its frames a second."""
    capture = cv2.VideoCapture(int(name) if name.isdecimal() and len(name) < 10 and not Path(name).exists() else name)
    if not capture.isOpened():
        what = f"camera {name} cannot be opened" if name.isdecimal() else f"{name} is not a video or stream that OpenCV can read"
        raise YolomishError(what)
    fps = capture.get(cv2.CAP_PROP_FPS)
    return capture, fps if 0 < fps <= 1000 else USUAL_FPS


def video_frames(name: str, stride: int) -> Iterator[tuple[int, np.ndarray, float]]:
    """(frame number, (H, W, 3) uint8 RGB, the kept frames' rate a second) of every ``stride``-th frame, upright.

    YolomishError where the file is no video, and at the end where it breaks off well before its stated length.
    """
    capture, fps = _open(name)
    try:
        number = 0
        while capture.grab():
            if number % stride == 0:
                ok, image = capture.retrieve()
                if not ok:
                    break
                yield number, cv2.cvtColor(image, cv2.COLOR_BGR2RGB), fps / stride
            number += 1
        stated = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    finally:
        capture.release()
    if number == 0:
        raise YolomishError(f"{name} has no frame that can be read")
    if 0 < stated < 1e9 and number < 0.9 * stated:  # the stated number is an estimate in some formats
        raise YolomishError(f"{name} breaks off at frame {number} of {stated:.0f}: is it whole?")


def live_frames(name: str, stride: int) -> Iterator[tuple[int, np.ndarray, float]]:
    """As ``video_frames``, from a camera or stream: always the newest frame, so that a slow network does not fall behind.

    ``number`` counts the frames that the source gave, looked at or not. Ends when the source does; YolomishError where it
    cannot be opened or is silent for long.
    """
    capture, fps = _open(name)
    changed = threading.Condition()
    newest: list[np.ndarray] = []
    state = {"number": -1, "ended": False, "stop": False}

    def receive() -> None:
        while not state["stop"]:
            ok, image = capture.read()
            with changed:
                if ok:
                    state["number"] += 1
                    newest[:] = [image]
                else:
                    state["ended"] = True
                changed.notify()
            if not ok:
                return

    def ready(wanted: int) -> bool:
        return state["number"] >= wanted or bool(state["ended"])

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    seen, wanted = -1, 0
    try:
        while True:
            with changed:
                fresh = changed.wait_for(partial(ready, wanted), NO_FRAME_S)
                number, image = int(state["number"]), newest[0] if newest else None
            if not fresh:
                raise YolomishError(f"{name} gave no frame for {NO_FRAME_S:.0f} s")
            if image is None or number <= seen:  # ended, and the last frame was looked at
                break
            seen, wanted = number, number + stride
            yield number, cv2.cvtColor(image, cv2.COLOR_BGR2RGB), fps / stride
    finally:
        state["stop"] = True
        thread.join(2)
        if not thread.is_alive():
            capture.release()
    if seen < 0:
        raise YolomishError(f"{name} gave no frame")


class VideoFile:
    """An MP4 that takes (H, W, 3) uint8 RGB frames of one size; it gets its name when it is closed and found whole."""

    def __init__(self, path: Path, fps: float, size_hw: tuple[int, int]) -> None:
        self.path, self.size_hw, self.frames = path, size_hw, 0
        self.part = path.with_name(f"{path.stem}{PARTIAL}{path.suffix}")
        self._writer = cv2.VideoWriter(str(self.part), cv2.VideoWriter.fourcc(*"mp4v"), fps, size_hw[::-1])
        if not self._writer.isOpened():
            self.part.unlink(missing_ok=True)
            raise YolomishError(f"{path} cannot be written: {self._why_not()}")

    def _why_not(self) -> str:
        """Why OpenCV, which does not say it, could not begin the file: the disk, or else its coder."""
        try:
            self.part.write_bytes(bytes(1 << 16))
        except OSError as error:
            return reason(error)
        finally:
            self.part.unlink(missing_ok=True)
        return f"OpenCV cannot make an MP4 of {self.size_hw[1]}x{self.size_hw[0]} px here"

    def write(self, image: np.ndarray) -> None:
        """Add a frame; one of another size (a stream may change it) is fitted to the first one's."""
        if image.shape[:2] != self.size_hw:
            image = cv2.resize(image, self.size_hw[::-1])
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self.frames += 1

    def close(self) -> None:
        """Finish the file; YolomishError where it then does not hold every frame: OpenCV says nothing of a full disk."""
        self._writer.release()
        capture = cv2.VideoCapture(str(self.part))
        held = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0
        capture.set(cv2.CAP_PROP_POS_FRAMES, self.frames - 1)
        whole = held == self.frames and capture.read()[0]
        capture.release()
        if not whole:
            self.part.unlink(missing_ok=True)
            raise YolomishError(f"{self.path} cannot be written, {self.frames} frames are lost: is the disk full?")
        os.replace(self.part, self.path)
