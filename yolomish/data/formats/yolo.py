"""YOLO txt: a folder or a list of images, labels as lines of fractions beside them or in labels/."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from yolomish.config import DataConfig
from yolomish.data.formats.faults import no_area
from yolomish.data.formats.record import (
    DataFormat,
    Finding,
    Folders,
    Listing,
    Record,
    Split,
    image_sizes,
    named_split,
    number,
    shown,
)
from yolomish.data.images import SUFFIXES
from yolomish.errors import YolomishError
from yolomish.files import read_lines


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A label line: box xyxy as fractions of the image; ``where`` as in ``Record``."""

    label: int
    box: tuple[float, float, float, float]
    where: str


def read_yolo(config: DataConfig, split: Split) -> Listing:
    """A split of YOLO txt: an image folder with its subfolders, or a list of images, relative to the list's folder.

    The labels of ``images/a/1.jpg`` are in ``labels/a/1.txt``, the last ``images`` of the path being replaced, or else in
    the ``1.txt`` beside it; an image without either is background. A line is ``class cx cy w h`` or ``class x y x y x y
    ...``, a polygon, of which the box around it is taken. Boxes without area are left out.
    """
    source = Path(config.root) / named_split(config, split)
    if not config.names:
        raise YolomishError(f"YOLO txt data in {source} needs names: [...] in its YAML")
    findings: list[Finding] = []
    paths = list(_paths(source, split, findings))
    sizes, more = image_sizes(paths, [None] * len(paths), split)
    findings += more
    folders, records = Folders(), []
    for image_id, (path, size) in enumerate(zip(paths, sizes, strict=True), 1):
        file = _label_file(path, folders)
        lines = list(_lines(file, split, config.names, findings)) if file else []
        h, w = size or (1, 1)  # such a set is not opened: its picture is missing or broken
        boxes = np.array([line.box for line in lines], np.float64).reshape(-1, 4) * (w, h, w, h)
        records.append(
            Record(
                path=path,
                image_id=image_id,
                size_hw=size,
                boxes=boxes,
                labels=np.array([line.label for line in lines], np.int64),
                areas=(boxes[:, 2:] - boxes[:, :2]).prod(1),
                crowd=np.zeros(len(lines), bool),
                ignore=np.zeros(len(lines), bool),
                file=file,
                where=tuple(line.where for line in lines),
            )
        )
    return Listing(
        source=source,
        names=config.names,
        category_ids=tuple(range(1, len(config.names) + 1)),
        records=tuple(records),
        findings=tuple(findings),
    )


def _paths(source: Path, split: Split, findings: list[Finding]) -> Iterator[Path]:
    if source.is_dir():
        yield from sorted(
            Path(folder, name)
            for folder, _, names in os.walk(source)
            for name in names
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
        )
        return
    if not source.is_file():
        raise YolomishError(f"{source} is neither a folder of images nor a list of them")
    first: dict[str, int] = {}
    for index, line in enumerate(read_lines(source), 1):
        name = line.strip()
        if not name:
            continue
        if name in first:
            message = f"{source}:{index}: {shown(name)} stands in line {first[name]} already: list each image once"
            findings.append(Finding(check="image-listed-twice", split=split, message=message))
        elif "\0" in name or not Path(name).suffix:
            message = f"{source}:{index}: {shown(name)} is no image's name"
            findings.append(Finding(check="annotation-malformed", split=split, message=message))
        else:
            first[name] = index
            yield source.parent / name


def _label_file(path: Path, folders: Folders) -> Path | None:
    parts = list(path.parts[:-1])
    candidates = [path.with_suffix(".txt")]
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        candidates.insert(0, Path(*parts[:last], "labels", *parts[last + 1 :], candidates[0].name))
    return next((file for file in candidates if folders.has(file)), None)


def _lines(file: Path, split: Split, names: tuple[str, ...], findings: list[Finding]) -> Iterator[_Line]:
    """The lines of a label file that hold a box; those that do not become findings."""
    try:
        lines = read_lines(file)
    except YolomishError as error:
        findings.append(Finding(check="annotation-malformed", split=split, message=str(error)))
        return
    for index, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f":{index}"
        try:
            label, box = _box(line)
        except ValueError as error:
            findings.append(Finding(check="annotation-malformed", split=split, message=f"{file}{where}: {error}: {shown(line)}"))
            continue
        if not (label.is_integer() and 0 <= label < len(names)):
            message = f"{file}{where}: class {f'{label:g}'!r} is not in 0..{len(names) - 1}, the data set's classes"
            findings.append(Finding(check="label-unknown", split=split, message=message))
        elif box[2] <= box[0] or box[3] <= box[1]:
            findings.append(no_area(split, f"{file}{where}", names[int(label)], box))
        else:
            yield _Line(label=int(label), box=box, where=where)


def _box(line: str) -> tuple[float, tuple[float, float, float, float]]:
    """The class and the box xyxy in fractions; ValueError saying what is wrong."""
    label, *values = (number(value) for value in line.split())
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise ValueError("not 'class cx cy w h' and no polygon 'class x y x y x y ...'")
    if not all(0 <= value <= 1 for value in values):
        raise ValueError("coordinates must be fractions of the image in 0..1")
    if len(values) == 4:
        cx, cy, w, h = values
        return label, (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
    return label, (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))


YOLO_TXT = DataFormat(name="yolo", read=read_yolo)
