"""The published files: what can be fetched by name, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from yolomish.files import digest


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A file on the web: ``size`` in bytes, ``sha1`` where its publisher or a second source states it (else empty).

    ``saw_val2017``: images of COCO's val2017 were among those it was trained on.
    """

    file: str
    url: str
    size: int
    sha1: str = ""
    about: str
    saw_val2017: bool = False


RELEASES = "https://github.com/AlexeyAB/darknet/releases/download"
PUBLISHED = (
    PublishedFile(
        file="yolov4.weights",
        url=f"{RELEASES}/yolov4/yolov4.weights",
        size=257_717_640,
        sha1="0143deb6c46fcc7f74dd35bf3c14edc3784e99ee",  # opencv_extra, testdata/dnn/download_models.py
        about="YOLOv4 with its authors' weights, COCO's 80 classes; they have seen images of val2017",
        saw_val2017=True,  # trained on Darknet's trainvalno5k list of 2014's images
    ),
    PublishedFile(
        file="yolov4.conv.137",
        url=f"{RELEASES}/darknet_yolo_v3_optimal/yolov4.conv.137",
        size=170_038_676,  # no checksum is published: the first one fetched is pinned
        about="YOLOv4 up to the heads, pretrained with Mish, to train from",
    ),
)


def published(name: str) -> PublishedFile | None:
    """The published file of a name, with or without its suffix: ``yolov4`` is yolov4.weights."""
    return next((p for p in PUBLISHED if name in (p.file, p.file.removesuffix(".weights"))), None)


def published_names() -> list[str]:
    """The short names that ``published`` takes."""
    return [p.file.removesuffix(".weights") for p in PUBLISHED]


def published_as(path: str | Path) -> PublishedFile | None:
    """The published file that ``path`` is by its content, whatever its name; only files of a known size are read."""
    candidates = [p for p in PUBLISHED if p.sha1 and p.size == Path(path).stat().st_size]
    sha1 = digest(Path(path)).sha1 if candidates else ""
    return next((p for p in candidates if p.sha1 == sha1), None)
