"""The data doctor: what is wrong with a data set, as findings with an id and a severity. It writes nothing."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from yolomish.config import DataConfig
from yolomish.data.datasets import Split
from yolomish.data.images import decode_image
from yolomish.data.raw import RawBox, RawImage, read_raw
from yolomish.errors import YolomishError

CHECKS = {
    "split-unreadable": "error",
    "annotation-malformed": "error",
    "image-missing": "error",
    "image-unreadable": "error",
    "size-differs": "error",
    "label-unknown": "error",
    "box-outside": "error",
    "train-val-overlap-id": "error",
    "train-val-overlap-content": "error",
    "box-degenerate": "warning",
    "box-clipped": "warning",
    "box-duplicate": "warning",
    "image-duplicate": "warning",
    "exif-rotated": "warning",
    "class-empty": "warning",
    "image-empty": "info",
}
EXIF_ORIENTATION = 0x0112
TOLERANCE = 1.0  # px over the border that rounding may explain


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fault: a ``check`` of ``CHECKS`` with its severity, the split and what is wrong where."""

    check: str
    split: str
    message: str

    @property
    def severity(self) -> str:
        """error, warning or info."""
        return CHECKS[self.check]


@dataclass(frozen=True, kw_only=True)
class _Pixels:
    """What a file turned out to hold: its upright (height, width), SHA-1 and EXIF orientation, or why not."""

    size_hw: tuple[int, int] | None = None
    sha1: str = ""
    orientation: int = 1
    fault: str = ""
    missing: bool = False


def check_data(config: DataConfig, *, fast: bool = False, workers: int = 4) -> list[Finding]:
    """All findings of the train and val splits, in the order of ``CHECKS``.

    ``fast`` reads images' headers alone: no broken pictures and no equal contents are found.
    """
    found: list[Finding] = []
    keys: dict[Split, set[str]] = {}
    hashes: dict[Split, dict[str, str]] = {}
    splits: tuple[Split, ...] = ("train", "val")
    for split in splits:
        try:
            images, names = read_raw(config, split)
        except YolomishError as error:
            found.append(Finding(check="split-unreadable", split=split, message=str(error)))
            continue
        with ThreadPoolExecutor(workers) as pool:
            pixels = list(pool.map(lambda image: _look(image, fast), images))
        for image, seen in zip(images, pixels, strict=True):
            found += [Finding(check=check, split=split, message=message) for check, message in _check_image(image, seen)]
        found += [Finding(check=check, split=split, message=message) for check, message in _check_split(images, names)]
        hashes[split] = {}
        for image, seen in zip(images, pixels, strict=True):
            if seen.sha1 and (first := hashes[split].setdefault(seen.sha1, str(image.path))) != str(image.path):
                found.append(Finding(check="image-duplicate", split=split, message=f"{image.path} equals {first}"))
        keys[split] = {image.key for image in images}
    if len(keys) == 2:
        found += _check_overlap(keys, hashes)
    order = list(CHECKS)
    return sorted(found, key=lambda f: order.index(f.check))


def _look(image: RawImage, fast: bool) -> _Pixels:
    if not image.path.is_file():
        return _Pixels(missing=True)
    orientation = 1
    try:
        with Image.open(image.path) as picture:
            orientation = int(picture.getexif().get(EXIF_ORIENTATION, 1))
            width, height = picture.size
    except (UnidentifiedImageError, OSError, ValueError) as error:
        return _Pixels(fault=f"{image.path}: {' '.join(str(error).split())}")
    size = (width, height) if orientation in (5, 6, 7, 8) else (height, width)
    if fast:
        return _Pixels(size_hw=size, orientation=orientation)
    try:
        raw = np.fromfile(image.path, np.uint8)
        decoded = decode_image(raw, str(image.path)).shape
    except (YolomishError, OSError) as error:
        return _Pixels(fault=str(error))
    return _Pixels(size_hw=(decoded[0], decoded[1]), sha1=hashlib.sha1(raw.tobytes()).hexdigest(), orientation=orientation)


def _check_image(image: RawImage, seen: _Pixels) -> Iterator[tuple[str, str]]:
    yield from (("annotation-malformed", fault) for fault in image.malformed)
    if seen.missing and image.path.name:
        yield "image-missing", f"{image.path} does not exist"
    if seen.fault:
        yield "image-unreadable", seen.fault
    if seen.orientation != 1:
        yield "exif-rotated", f"{image.path} is stored turned or mirrored (EXIF {seen.orientation}) and is shown upright"
    if seen.size_hw and image.size_hw and seen.size_hw != image.size_hw:
        turned = " (its sides swapped: an EXIF rotation the annotation ignored?)" if seen.size_hw == image.size_hw[::-1] else ""
        h, w = image.size_hw
        yield "size-differs", f"{image.path} is {seen.size_hw[1]}x{seen.size_hw[0]} px, its annotation says {w}x{h}{turned}"
    size = seen.size_hw or image.size_hw
    seen_boxes = Counter((box.label, box.xyxy) for box in image.boxes)
    for (label, xyxy), count in seen_boxes.items():
        if count > 1:
            yield "box-duplicate", f"{image.path}: {count} times {label} at {_text(xyxy)}"
    for box in image.boxes:
        yield from _check_box(box, size, image.fractions)


def _check_box(box: RawBox, size_hw: tuple[int, int] | None, fractions: bool) -> Iterator[tuple[str, str]]:
    if not box.known:
        yield "label-unknown", f"{box.where}: class {box.label!r} is not one of the data set's"
    if not all(math.isfinite(v) for v in box.xyxy):
        yield "annotation-malformed", f"{box.where}: {_text(box.xyxy)}"
        return
    x0, y0, x1, y1 = box.xyxy
    if x1 <= x0 or y1 <= y0:
        yield "box-degenerate", f"{box.where}: {box.label} at {_text(box.xyxy)} has no area"
        return
    if size_hw is None:
        return
    h, w = size_hw
    if fractions:
        x0, y0, x1, y1 = x0 * w, y0 * h, x1 * w, y1 * h
    if x0 >= w or y0 >= h or x1 <= 0 or y1 <= 0:
        yield "box-outside", f"{box.where}: {box.label} at {_text((x0, y0, x1, y1))} lies outside the {w}x{h} image"
    elif x0 < -TOLERANCE or y0 < -TOLERANCE or x1 > w + TOLERANCE or y1 > h + TOLERANCE:
        yield "box-clipped", f"{box.where}: {box.label} at {_text((x0, y0, x1, y1))} reaches over the {w}x{h} image's border"


def _text(box: tuple[float, float, float, float]) -> str:
    return "(" + ", ".join(f"{v:g}" for v in box) + ")"


def _check_split(images: list[RawImage], names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    counts = Counter(box.label for image in images for box in image.boxes)
    for name in names:
        if not counts[name]:
            yield "class-empty", f"no box of class {name}"
    empty = sum(not image.boxes for image in images)
    if empty:
        yield "image-empty", f"{empty} of {len(images)} images have no boxes: they teach background"


def _check_overlap(keys: dict[Split, set[str]], hashes: dict[Split, dict[str, str]]) -> Iterator[Finding]:
    for key in sorted(keys["train"] & keys["val"]):
        yield Finding(check="train-val-overlap-id", split="both", message=f"image {key} is in train and in val")
    for sha1 in sorted(hashes["train"].keys() & hashes["val"].keys()):
        message = f"{hashes['val'][sha1]} in val equals {hashes['train'][sha1]} in train"
        yield Finding(check="train-val-overlap-content", split="both", message=message)


def counts(findings: list[Finding]) -> dict[str, int]:
    """The number of findings of each severity."""
    numbers = dict.fromkeys(("error", "warning", "info"), 0)
    for finding in findings:
        numbers[finding.severity] += 1
    return numbers


def by_check(findings: list[Finding]) -> dict[str, list[Finding]]:
    """The findings grouped by check, in order."""
    groups: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        groups[finding.check].append(finding)
    return dict(groups)
