"""The published files: what can be fetched by name, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from yolomish.download import Download
from yolomish.files import Digest, digest


@dataclass(frozen=True, kw_only=True)
class PublishedFile(Download):
    """Weights on the web.

    ``model`` is the shipped model that it belongs to. ``accuracy`` is COCO's as published, with size and split, ``bflops`` per
    image at that size; empty and 0 for a file to train from. ``saw_val2017``: images of COCO's val2017 were among those it was
    trained on; ``on_val2017`` is what it is known to reach there.
    """

    ELSEWHERE: ClassVar[str] = "set YOLOMISH_WEIGHTS to another folder"
    INSTEAD: ClassVar[str] = "weights 'demo' need no download"
    model: str
    about: str
    accuracy: str = ""
    bflops: float = 0.0
    saw_val2017: bool = False
    on_val2017: str = ""


# SHA-1: opencv_extra, testdata/dnn/download_models.py. Accuracy and BFLOPs: Darknet's README, pre-trained models
RELEASES = "https://github.com/AlexeyAB/darknet/releases/download"
PJREDDIE = "https://pjreddie.com/media/files"
PUBLISHED = (
    PublishedFile(
        file="yolov4.weights",
        url=f"{RELEASES}/yolov4/yolov4.weights",
        size=257_717_640,
        model="yolov4",
        sha1="0143deb6c46fcc7f74dd35bf3c14edc3784e99ee",
        about="YOLOv4 with its authors' weights",
        accuracy="AP 43.5, AP50 65.7 (608 px, test-dev)",
        bflops=128.5,
        saw_val2017=True,  # trained on Darknet's trainvalno5k list of 2014's images, as all of Darknet's own
        on_val2017="AP 47.1 / AP50 71.0 at 416, 50.6 / 73.9 at 608; on test-dev: 41.2 / 62.8 and 43.5 / 65.7",
    ),
    PublishedFile(
        file="yolov4-tiny.weights",
        url=f"{RELEASES}/yolov4/yolov4-tiny.weights",
        size=24_251_276,
        model="yolov4-tiny",
        sha1="451caaab22fb9831aa1a5ee9b5ba74a35ffa5dcb",
        about="YOLOv4-tiny, the light way in",
        accuracy="AP50 40.2 (416 px, test-dev)",
        bflops=6.9,
        saw_val2017=True,
    ),
    PublishedFile(
        file="yolov4-csp.weights",
        url=f"{RELEASES}/darknet_yolo_v4_pre/yolov4-csp.weights",
        size=211_944_840,
        model="yolov4-csp",
        about="Scaled-YOLOv4",
        accuracy="AP 47.5, AP50 66.2 (640 px, test-dev)",
        bflops=120.0,
    ),
    PublishedFile(
        file="yolov4x-mish.weights",
        url=f"{RELEASES}/darknet_yolo_v4_pre/yolov4x-mish.weights",
        size=399_388_168,
        model="yolov4x-mish",
        sha1="a6f2879af2241de2e9730d317a55db6afd0af00b",
        about="Scaled-YOLOv4, extra large",
        accuracy="AP 49.4, AP50 67.9 (640 px, test-dev)",
        bflops=221.0,
    ),
    PublishedFile(
        file="yolov3.weights",
        url=f"{PJREDDIE}/yolov3.weights",
        size=248_007_048,
        model="yolov3",
        sha1="520878f12e97cf820529daea502acca380f1cb8e",
        about="YOLOv3",
        accuracy="AP50 55.3 (416 px, test-dev)",
        bflops=65.9,
        saw_val2017=True,
    ),
    PublishedFile(
        file="yolov3-tiny.weights",
        url=f"{PJREDDIE}/yolov3-tiny.weights",
        size=35_434_956,
        model="yolov3-tiny",
        about="YOLOv3-tiny",
        accuracy="AP50 33.1 (416 px, test-dev)",
        bflops=5.6,
        saw_val2017=True,
    ),
    # No checksum is published for those to train from: the first one fetched is pinned
    PublishedFile(
        file="yolov4-tiny.conv.29",
        url=f"{RELEASES}/yolov4/yolov4-tiny.conv.29",
        size=19_789_716,
        model="yolov4-tiny",
        about="to train from: YOLOv4-tiny up to its first head",
    ),
    PublishedFile(
        file="yolov4.conv.137",
        url=f"{RELEASES}/darknet_yolo_v3_optimal/yolov4.conv.137",
        size=170_038_676,
        model="yolov4",
        about="to train from: YOLOv4 up to its first head, trained with Mish",
    ),
    PublishedFile(
        file="yolov4-csp.conv.142",
        url=f"{RELEASES}/darknet_yolo_v4_pre/yolov4-csp.conv.142",
        size=146_548_116,
        model="yolov4-csp",
        about="to train from: Scaled-YOLOv4 up to its first head, trained with Mish",
    ),
    PublishedFile(
        file="yolov4x-mish.conv.166",
        url=f"{RELEASES}/darknet_yolo_v4_pre/yolov4x-mish.conv.166",
        size=277_307_668,
        model="yolov4x-mish",
        about="to train from: Scaled-YOLOv4 x up to its first head, trained with Mish",
    ),
)


def published(name: str) -> PublishedFile | None:
    """The published file of a name, with or without its suffix: ``yolov4`` is yolov4.weights."""
    return next((p for p in PUBLISHED if name in (p.file, p.file.removesuffix(".weights"))), None)


def published_names() -> list[str]:
    """The short names that ``published`` takes."""
    return [p.file.removesuffix(".weights") for p in PUBLISHED]


def published_as(path: str | Path, known: Digest | None = None) -> PublishedFile | None:
    """The published file that ``path`` is by its content, whatever its name; only files of a known size are read, and not
    where their digest is ``known``."""
    candidates = [p for p in PUBLISHED if p.sha1 and p.size == Path(path).stat().st_size]
    sha1 = (known or digest(Path(path))).sha1 if candidates else ""
    return next((p for p in candidates if p.sha1 == sha1), None)
