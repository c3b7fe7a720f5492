"""Sources through a detector into files: what ``yolomish detect`` does."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from yolomish.inference.detector import Detector
from yolomish.inference.sources import Failure, Frame, Source, read_frames
from yolomish.types import Detections


@dataclass(frozen=True, kw_only=True)
class Found:
    """A frame with its detections, and its share of the time that its batch took to detect, in ms."""

    frame: Frame
    detections: Detections
    milliseconds: float


def detect_sources(
    detector: Detector, sources: Sequence[Source], *, batch: int = 1, vid_stride: int = 1
) -> Iterator[Found | Failure]:
    """Detections of every frame of ``sources`` (see ``expand_sources``), in order, as they come.

    ``batch`` frames go through the network at once, but those of cameras, streams and stdin one by one; of a video every
    ``vid_stride``-th is looked at. What cannot be read is a Failure, and the rest goes on.
    """
    waits = any(source.kind in ("live", "stdin") for source in sources)
    frames = read_frames(sources, vid_stride=vid_stride)
    yield from detect_frames(detector, frames if waits else read_ahead(frames), batch=1 if waits else batch)


def detect_frames(detector: Detector, frames: Iterable[Frame | Failure], *, batch: int = 1) -> Iterator[Found | Failure]:
    """Detections of each frame and each failure, in their order; ``batch`` frames go through the network at once."""
    waiting: list[Frame] = []
    for item in frames:
        if isinstance(item, Failure):
            yield from _detect(detector, waiting)
            waiting = []
            yield item
            continue
        waiting.append(item)
        if len(waiting) == batch:
            yield from _detect(detector, waiting)
            waiting = []
    yield from _detect(detector, waiting)


def read_ahead(frames: Iterable[Frame | Failure]) -> Iterator[Frame | Failure]:
    """The same frames, the next one read by another thread while this one is looked at.

    Not for live streams, which have a thread of their own, nor for stdin, whose next line may never come.
    """
    iterator, end = iter(frames), None
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, iterator, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, iterator, end)
            yield item


def _detect(detector: Detector, frames: list[Frame]) -> Iterator[Found]:
    if not frames:
        return
    start = time.perf_counter()
    found = detector.detect_batch([frame.image for frame in frames])
    milliseconds = 1000 * (time.perf_counter() - start) / len(frames)
    for frame, detections in zip(frames, found, strict=True):
        yield Found(frame=frame, detections=detections, milliseconds=milliseconds)
