"""PASCAL VOC: XML in Annotations/, pictures in JPEGImages/, lists in ImageSets/ or ImageSets/Main/."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from yolomish.config import DataConfig
from yolomish.data.formats.faults import no_area
from yolomish.data.formats.record import (
    MAX_PX,
    SPLITS,
    WORDS,
    DataFormat,
    Finding,
    Folders,
    Listing,
    Record,
    Split,
    by_split,
    image_sizes,
    laid_out,
    number,
    shown,
    split_of,
    split_path,
)
from yolomish.data.formats.writing import WholeSet, Writer, short
from yolomish.data.images import SUFFIXES
from yolomish.errors import YolomishError
from yolomish.files import read_lines

PICTURES = ("JPEGImages", "images", "data", "img")
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
    """An XML file; ``picture`` is what it calls its picture."""

    file: Path
    picture: str
    size_hw: tuple[int, int] | None
    objects: tuple[_Object, ...]
    faults: tuple[str, ...]


def read_voc(config: DataConfig, split: Split) -> Listing:
    """A split of a VOC folder, or of a folder of XML files with their pictures; without ``names`` in the YAML the classes are
    those of train and val, by alphabet.

    Objects marked difficult are ignored in AP, as the VOC development kit does, and trained on. Boxes without area are
    left out.
    """
    root, folders = Path(config.root), Folders()
    source, files = _files(root, split_path(config, split), folders)
    annotations = {file: _annotation(file) for file in files}
    names = config.names or _names(root, config, annotations, folders)
    label_of = {name: label for label, name in enumerate(names)}
    findings = [
        Finding(check="annotation-malformed", split=split, message=f"{a.file}{fault}")
        for a in annotations.values()
        for fault in a.faults
    ]
    if len(annotations) < len(files):
        twice = sorted({file.stem for file in files if files.count(file) > 1})
        message = f"{source}: {', '.join(twice[:5])} stand there twice: list each image once"
        findings.append(Finding(check="image-listed-twice", split=split, message=message))
    paths = _pictures(root, list(annotations.values()), folders)
    if source.is_dir():
        findings += _passed_over(source, {path.parent for path in paths}, set(paths), folders, split)
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
        records.append(
            Record.of(
                path,
                image_id,
                size,
                [item.box for item in kept],
                [label_of[item.name] for item in kept],
                ignore=[item.difficult for item in kept],
                file=annotation.file,
                where=[item.where for item in kept],
            )
        )
    return Listing(
        source=source,
        names=names,
        category_ids=tuple(range(1, len(names) + 1)),
        records=tuple(records),
        findings=tuple(findings),
    )


def _files(root: Path, name: str, folders: Folders) -> tuple[Path, list[Path]]:
    """The list of a split and the XML files it names, which may hold spaces; the column that class lists add is dropped. Or a
    folder and all XML in it and its subfolders."""
    for file in (root / "ImageSets" / f"{name}.txt", root / "ImageSets" / "Main" / f"{name}.txt"):
        if folders.has(file):
            break
    else:
        if (root / name).is_dir() and (found := sorted((root / name).rglob("*.[xX][mM][lL]"))):
            return root / name, found
        raise YolomishError(f"no ImageSets/{name}.txt or ImageSets/Main/{name}.txt under {root}, and no folder {name} with XML")
    annotated = folders.names(root / "Annotations")
    files = []
    for line in (line.strip() for line in read_lines(file)):
        stem, _, flag = line.rpartition(" ")
        stem = stem.strip()
        if line:
            stem = stem if stem and flag in FLAGS and f"{line}.xml" not in annotated else line
            files.append(root / "Annotations" / f"{stem}.xml")
    return file, files


def _names(root: Path, config: DataConfig, known: dict[Path, _Annotation], folders: Folders) -> tuple[str, ...]:
    names: set[str] = set()
    for split in SPLITS[:2]:
        if getattr(config, split):
            for file in _files(root, split_path(config, split), folders)[1]:
                annotation = known.get(file) or _annotation(file)
                names.update(item.name for item in annotation.objects)
    return tuple(sorted(names))


def _pictures(root: Path, annotations: Sequence[_Annotation], folders: Folders) -> list[Path]:
    """The picture of each XML: of its own name, whatever the case of the suffix, or as its ``filename`` says, in JPEGImages,
    beside it, or in a folder of pictures beside its own."""
    found: dict[Path, dict[str, Path]] = {}
    paths = []
    for annotation in annotations:
        home, stem = annotation.file.parent, annotation.file.stem
        places = [root / "JPEGImages", home, *(home.parent / name for name in PICTURES)]
        if home.name != "Annotations":
            places.append(places.pop(0))
        for folder in places:
            if folder not in found:
                found[folder] = _by_stem(folder, folders)
        stated = annotation.picture.replace("\\", "/").rpartition("/")[2].rpartition(".")[0]
        candidates = [found[folder][name] for name in (stem, stated) for folder in places if name in found[folder]]
        paths.append(candidates[0] if candidates else places[0] / f"{stem}.jpg")
    return paths


def _by_stem(folder: Path, folders: Folders) -> dict[str, Path]:
    """The picture of each stem in a folder; of several the .jpg, or else the first by alphabet."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in sorted(folders.names(folder)):
        stem, dot, suffix = name.rpartition(".")
        if f".{suffix.lower()}" in SUFFIXES and dot:
            found[stem].append(name)
    return {stem: folder / (f"{stem}.jpg" if f"{stem}.jpg" in names else names[0]) for stem, names in found.items()}


def _passed_over(source: Path, places: set[Path], used: set[Path], folders: Folders, split: Split) -> Iterator[Finding]:
    """What is said of pictures in a folder of XML files that have none of their own."""
    there = {path for place in places for path in _by_stem(place, folders).values()}
    if rest := sorted(there - used):
        message = f"{source}: {len(rest)} pictures have no XML and are passed over, such as {rest[0]}"
        yield Finding(check="image-passed-over", split=split, message=message)


def _annotation(file: Path) -> _Annotation:
    try:
        tree = ET.parse(file).getroot()
    except (OSError, ET.ParseError, ValueError, LookupError) as error:  # LookupError: an encoding nobody knows
        fault = f": {getattr(error, 'strerror', None) or error}"
        return _Annotation(file=file, picture="", size_hw=None, objects=(), faults=(fault,))
    objects, faults = [], []
    for index, item in enumerate(tree.iter("object"), 1):
        where = f" object {index}"
        try:
            x0, y0, x1, y1 = (number(item.findtext(f"bndbox/{key}", "")) for key in ("xmin", "ymin", "xmax", "ymax"))
            if max(map(abs, (x0, y0, x1, y1))) > MAX_PX:
                raise ValueError(f"nothing is over {MAX_PX:g} px")
        except ValueError as error:
            faults.append(f"{where}: no complete bndbox: {error}")
            continue
        # pixels count from 1 and the last one is included
        box = (x0 - 1, y0 - 1, x1, y1)
        difficult = item.findtext("difficult", "0").strip().lower() in ("1", "true")
        if name := item.findtext("name", "").strip():
            objects.append(_Object(name=name, box=box, difficult=difficult, where=where))
        else:
            faults.append(f"{where}: no name")
    picture = tree.findtext("filename", "").strip()
    return _Annotation(file=file, picture=picture, size_hw=_size(tree), objects=tuple(objects), faults=tuple(faults))


def _size(tree: ET.Element) -> tuple[int, int] | None:
    """The stated (height, width); None where it is missing, empty, 0 or no whole number: the picture's header knows."""
    try:
        height, width = (number(tree.findtext(f"size/{key}", "")) for key in ("height", "width"))
    except ValueError:
        return None
    return (int(height), int(width)) if min(height, width) > 0 and height % 1 == width % 1 == 0 else None


def recognise_voc(path: Path) -> DataConfig | None:
    """VOC's own folder, as CVAT writes it too, or XML files: a folder a split (Roboflow), or one of all (labelImg, FiftyOne)."""
    if (path / "Annotations").is_dir():
        for folder in (path / "ImageSets" / "Main", path / "ImageSets"):
            lists = sorted(file.stem for file in folder.glob("*.txt"))
            whole = [name for name in lists if name.lower() in WORDS] or (lists if len(lists) == 1 else [])
            if splits := by_split(whole):
                return laid_out("voc", path, splits)
    if not path.is_dir():
        return None
    tops = sorted(top.name for top in path.iterdir() if split_of(top.name) and any(top.rglob("*.xml")))
    lone: dict[Split, str] = {"train": ".", "val": "."} if not tops and any(path.rglob("*.xml")) else {}
    splits = by_split(tops) or lone
    return laid_out("voc", path, splits) if splits else None


def write_voc(folder: Path, whole: WholeSet) -> None:
    """Annotations/*.xml and ImageSets/Main/SPLIT.txt. Coordinates that are no whole pixels are written as they are."""
    (folder / "Annotations").mkdir()
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    for split, records in whole.splits.items():
        for record in records:
            h, w = record.size_hw or (0, 0)
            tree = ET.Element("annotation")
            _fields(tree, folder="JPEGImages", filename=record.path.name)
            _fields(ET.SubElement(tree, "size"), width=w, height=h, depth=3)
            _fields(tree, segmented=0)
            for box, label, difficult in zip(record.boxes, record.labels, record.ignore, strict=True):
                item = ET.SubElement(tree, "object")
                _fields(item, name=whole.names[label], pose="Unspecified", truncated=0, difficult=int(difficult))
                sides = zip(("xmin", "ymin", "xmax", "ymax"), np.add(box, (1, 1, 0, 0)), strict=True)
                _fields(ET.SubElement(item, "bndbox"), **{key: short(round(value, 9)) for key, value in sides})
            ET.indent(tree, "\t")
            text = ET.tostring(tree, encoding="unicode")
            (folder / "Annotations" / f"{record.path.stem}.xml").write_text(text + "\n", encoding="utf-8")
        lines = "".join(f"{record.path.stem}\n" for record in records)
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text(lines, encoding="utf-8")


def _fields(parent: ET.Element, **values: object) -> None:
    for key, value in values.items():
        ET.SubElement(parent, key).text = str(value)


PASCAL_VOC = DataFormat(
    name="voc",
    read=read_voc,
    recognise=recognise_voc,
    writer=Writer(pictures=lambda _: "JPEGImages", write=write_voc, keeps=frozenset({"difficult marks"}), least=1.0),
)
