"""PASCAL VOC: XML in Annotations/, pictures in JPEGImages/, lists in ImageSets/ or ImageSets/Main/."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import defaultdict
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

FLAGS = ("1", "-1", "0")  # the second column of a class's own list: shown, not shown, difficult


@dataclass(frozen=True, kw_only=True)
class _Object:
    """An object: its box (4,) xyxy in px from 0, the end not included; ``where`` as in ``Record``."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool
    where: str


@dataclass(frozen=True, kw_only=True)
class _Annotation:
    file: Path
    size_hw: tuple[int, int] | None
    objects: tuple[_Object, ...]
    faults: tuple[str, ...]


def read_voc(config: DataConfig, split: Split) -> Listing:
    """A split of a VOC folder; without ``names`` in the YAML the classes are those of train and val, by alphabet.

    Objects marked difficult are ignored in AP, as the VOC development kit does, and trained on. Boxes without area are
    left out.
    """
    root, folders = Path(config.root), Folders()
    source, stems = _list(root, named_split(config, split), folders)
    annotations = {stem: _annotation(root / "Annotations" / f"{stem}.xml") for stem in stems}
    names = config.names or _names(root, config, annotations, folders)
    label_of = {name: label for label, name in enumerate(names)}
    findings = [
        Finding(check="annotation-malformed", split=split, message=f"{a.file}{fault}")
        for a in annotations.values()
        for fault in a.faults
    ]
    if len(annotations) < len(stems):
        twice = sorted({stem for stem in stems if stems.count(stem) > 1})
        message = f"{source}: {', '.join(twice[:5])} stand there twice: list each image once"
        findings.append(Finding(check="image-listed-twice", split=split, message=message))
    pictures = _pictures(root / "JPEGImages", folders)
    paths = [pictures.get(stem, root / "JPEGImages" / f"{stem}.jpg") for stem in annotations]
    sizes, more = image_sizes(paths, [a.size_hw for a in annotations.values()], split)
    findings += more
    records = []
    for image_id, (path, size, annotation) in enumerate(zip(paths, sizes, annotations.values(), strict=True), 1):
        kept = []
        for item in annotation.objects:
            place, (x0, y0, x1, y1) = f"{annotation.file}{item.where}", item.box
            if item.name not in label_of:
                message = f"{place}: class {shown(item.name)} is not one of the data set's"
                findings.append(Finding(check="label-unknown", split=split, message=message))
            elif x1 - x0 <= 1 or y1 - y0 <= 1:  # VOC includes the last pixel, and no object is one pixel wide
                findings.append(no_area(split, place, item.name, item.box, path))
            else:
                kept.append(item)
        boxes = np.array([item.box for item in kept], np.float64).reshape(-1, 4)
        records.append(
            Record(
                path=path,
                image_id=image_id,
                size_hw=size,
                boxes=boxes,
                labels=np.array([label_of[item.name] for item in kept], np.int64),
                areas=(boxes[:, 2:] - boxes[:, :2]).prod(1),
                crowd=np.zeros(len(kept), bool),
                ignore=np.array([item.difficult for item in kept], bool),
                file=annotation.file,
                where=tuple(item.where for item in kept),
            )
        )
    return Listing(
        source=source,
        names=names,
        category_ids=tuple(range(1, len(names) + 1)),
        records=tuple(records),
        findings=tuple(findings),
    )


def _list(root: Path, name: str, folders: Folders) -> tuple[Path, list[str]]:
    """The list of a split and the names in it, which may hold spaces; the column that class lists add is dropped."""
    for file in (root / "ImageSets" / f"{name}.txt", root / "ImageSets" / "Main" / f"{name}.txt"):
        if folders.has(file):
            break
    else:
        raise YolomishError(f"no ImageSets/{name}.txt or ImageSets/Main/{name}.txt under {root}")
    annotated = folders.names(root / "Annotations")
    stems = []
    for line in (line.strip() for line in read_lines(file)):
        stem, _, flag = line.rpartition(" ")
        stem = stem.strip()
        if line:
            stems.append(stem if stem and flag in FLAGS and f"{line}.xml" not in annotated else line)
    return file, stems


def _names(root: Path, config: DataConfig, known: dict[str, _Annotation], folders: Folders) -> tuple[str, ...]:
    names: set[str] = set()
    for split in filter(None, (config.train, config.val)):
        for stem in _list(root, split, folders)[1]:
            annotation = known.get(stem) or _annotation(root / "Annotations" / f"{stem}.xml")
            names.update(item.name for item in annotation.objects)
    return tuple(sorted(names))


def _pictures(folder: Path, folders: Folders) -> dict[str, Path]:
    """The picture of each stem, whatever the case of its suffix; of several the .jpg, or else the first by alphabet."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in sorted(folders.names(folder)):
        stem, dot, suffix = name.rpartition(".")
        if f".{suffix.lower()}" in SUFFIXES and dot:
            found[stem].append(name)
    return {stem: folder / (f"{stem}.jpg" if f"{stem}.jpg" in names else names[0]) for stem, names in found.items()}


def _annotation(file: Path) -> _Annotation:
    try:
        tree = ET.parse(file).getroot()
    except (OSError, ET.ParseError, ValueError, LookupError) as error:  # LookupError: an encoding nobody knows
        fault = f": {getattr(error, 'strerror', None) or error}"
        return _Annotation(file=file, size_hw=None, objects=(), faults=(fault,))
    objects, faults = [], []
    for index, item in enumerate(tree.iter("object"), 1):
        where = f" object {index}"
        try:
            x0, y0, x1, y1 = (number(item.findtext(f"bndbox/{key}", "")) for key in ("xmin", "ymin", "xmax", "ymax"))
        except ValueError as error:
            faults.append(f"{where}: no complete bndbox: {error}")
            continue
        # pixels count from 1 and the last one is included
        box = (x0 - 1, y0 - 1, x1, y1)
        difficult = item.findtext("difficult", "0").strip().lower() in ("1", "true")
        objects.append(_Object(name=item.findtext("name", ""), box=box, difficult=difficult, where=where))
    return _Annotation(file=file, size_hw=_size(tree), objects=tuple(objects), faults=tuple(faults))


def _size(tree: ET.Element) -> tuple[int, int] | None:
    """The stated (height, width); None where it is missing, empty, 0 or no whole number: the picture's header knows."""
    try:
        height, width = (number(tree.findtext(f"size/{key}", "")) for key in ("height", "width"))
    except ValueError:
        return None
    return (int(height), int(width)) if min(height, width) > 0 and height % 1 == width % 1 == 0 else None


PASCAL_VOC = DataFormat(name="voc", read=read_voc)
