"""Detections as files, written as they come: annotated pictures and videos, crops, COCO JSON, CSV and YOLO txt."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolomish.data.images import write_image
from yolomish.drawing.boxes import draw_detections
from yolomish.errors import YolomishError
from yolomish.files import PARTIAL, clean_name, make_folder, reason, write_text
from yolomish.inference.records import CocoFile, as_record
from yolomish.inference.sources import Frame
from yolomish.inference.video import VideoFile
from yolomish.types import Detections

LARGEST_SIDE = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}  # px that a format holds
WRITTEN_SUFFIXES = {*LARGEST_SIDE, ".png", ".bmp", ".tif", ".tiff"}
CSV_FIELDS = ("file", "frame", "class", "label", "score", "x1", "y1", "x2", "y2")


@dataclass(frozen=True, kw_only=True)
class OutputChoice:
    """What to write. ``line_width`` is in px, 0: by the picture's size; ``scores`` adds a column to the YOLO txt."""

    pictures: bool = True
    json: bool = False
    csv: bool = False
    txt: bool = False
    crops: bool = False
    scores: bool = False
    line_width: int = 0

    @property
    def anything(self) -> bool:
        """Whether there is something to write."""
        return self.pictures or self.json or self.csv or self.txt or self.crops


class Outputs:
    """Writes what ``choice`` asks for into ``folder``, a frame at a time; a ``with`` around it completes the files.

    Pictures keep their file's name and format where OpenCV writes it, else become PNG; videos become MP4 at their own
    rate; ``labels/`` holds the YOLO txt, ``crops/CLASS/`` the crops. Two sources of one name are a and a-2, and so is a
    picture that is called as a video's frame is here. What grows while it is written has ``.part`` in its name until then.
    """

    def __init__(self, folder: Path, names: Sequence[str], choice: OutputChoice) -> None:
        self.folder, self.names, self.choice = folder, tuple(names), choice
        self._taken: set[str] = set()  # names of pictures and videos, and of videos' frames up to their number
        self._video_of, self._video_stem = "", ""
        self._video: VideoFile | None = None
        self._open = ExitStack()
        self._coco: CocoFile | None = None
        self._csv: Any = None
        with _disk(folder):
            if choice.json:
                self._coco = CocoFile(folder / "detections.json", self.names)
                self._open.callback(self._coco.close)
            if choice.csv:
                part = folder / f"detections{PARTIAL}.csv"
                self._open.callback(os.replace, part, folder / "detections.csv")  # called last
                table = open(part, "w", newline="", encoding="utf-8", errors="backslashreplace")
                self._csv = csv.writer(self._open.enter_context(table))
                self._csv.writerow(CSV_FIELDS)
            if choice.txt:
                (folder / "labels").mkdir()

    def __enter__(self) -> Outputs:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._end_video()
        finally:
            with _disk(self.folder):
                self._open.close()

    def add(self, frame: Frame, found: Detections) -> None:
        """Write one frame's part; YolomishError where the disk does not take it."""
        stem = self._stem(frame)
        record = as_record(frame, found, self.names)
        with _disk(self.folder):
            if self.choice.pictures:
                self._picture(stem, frame, found)
            if self._coco:
                self._coco.add(record)
            if self._csv:
                number = "" if frame.number is None else frame.number
                for d in record["detections"]:
                    self._csv.writerow([frame.name, number, d["class"], d["label"], d["score"], *d["box"]])
            numbered = stem if frame.number is None else f"{stem}-{frame.number:06d}"
            if self.choice.txt:
                lines = yolo_lines(record, scores=self.choice.scores)
                write_text(self.folder / "labels" / f"{numbered}.txt", lines, sync=False)
            if self.choice.crops:
                self._crops(numbered, frame, record)

    def _stem(self, frame: Frame) -> str:
        if frame.number is not None and frame.name == self._video_of:
            return self._video_stem
        self._end_video()
        base = clean_name(Path(frame.name).stem)
        stem, number = base, 1
        while self._names(stem, frame) & self._taken:
            number += 1
            stem = f"{base}-{number}"
        self._taken |= self._names(stem, frame)
        if frame.number is not None:
            self._video_of, self._video_stem = frame.name, stem
        return stem

    @staticmethod
    def _names(stem: str, frame: Frame) -> set[str]:
        """What a stem takes: itself and, of a video, ``stem-#``, for its frames; a picture called ``stem-000012`` takes that."""
        stem = stem.casefold()
        frames = f"{stem}-#" if frame.number is not None else re.sub(r"-\d{6,}$", "-#", stem)
        return {stem, frames}

    def _picture(self, stem: str, frame: Frame, found: Detections) -> None:
        drawn = draw_detections(frame.image, found, self.names, line_width=self.choice.line_width)
        if frame.number is None:
            write_image(self.folder / f"{stem}{_suffix(frame)}", drawn)
            return
        if self._video is None:
            assert frame.fps is not None
            self._video = VideoFile(self.folder / f"{stem}.mp4", frame.fps, drawn.shape[:2])
        self._video.write(drawn)

    def _crops(self, stem: str, frame: Frame, record: dict[str, Any]) -> None:
        h, w = frame.image.shape[:2]
        for number, found in enumerate(record["detections"], 1):
            x0, y0, x1, y1 = found["box"]
            left, top = min(int(x0), w - 1), min(int(y0), h - 1)
            crop = frame.image[top : max(top + 1, round(y1)), left : max(left + 1, round(x1))]
            folder = make_folder(self.folder / "crops" / clean_name(found["class"]))
            write_image(folder / f"{stem}-{number}.jpg", crop)

    def _end_video(self) -> None:
        if self._video:
            self._video.close()
        self._video, self._video_of = None, ""


def yolo_lines(record: dict[str, Any], *, scores: bool) -> str:
    """One line a detection: label cx cy w h as fractions of the image, and the score if asked for."""
    w, h = record["width"], record["height"]
    lines = []
    for d in record["detections"]:
        x0, y0, x1, y1 = d["box"]
        values = [(x0 + x1) / 2 / w, (y0 + y1) / 2 / h, (x1 - x0) / w, (y1 - y0) / h, *([d["score"]] if scores else [])]
        lines.append(" ".join([str(d["label"]), *(f"{v:.6f}" for v in values)]) + "\n")
    return "".join(lines)


def _suffix(frame: Frame) -> str:
    suffix = Path(frame.name).suffix.lower()
    fits = max(frame.image.shape[:2]) <= LARGEST_SIDE.get(suffix, 1 << 31)
    return Path(frame.name).suffix if suffix in WRITTEN_SUFFIXES and fits else ".png"


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise YolomishError(f"{folder} cannot be written: {reason(error)}") from None
