"""YOLO txt: folders or lists of images, labels as lines of fractions beside them or in labels/."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from yolomish.config import DataConfig, load_data_config
from yolomish.darknet.names import read_names
from yolomish.data.formats.faults import no_area
from yolomish.data.formats.record import (
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
    split_paths,
)
from yolomish.data.formats.writing import Kept, WholeSet, Writer, fractions, short
from yolomish.data.images import SUFFIXES
from yolomish.errors import YolomishError
from yolomish.files import read_lines

# where tools write the names of the classes: labelImg and Label Studio, CVAT, Roboflow
NAMES = ("classes.txt", "obj.names", "_darknet.labels", "_classes.txt")


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A label line: box xyxy as fractions of the image; ``where`` as in ``Record``."""

    label: int
    box: tuple[float, float, float, float]
    where: str
    polygon: bool


def read_yolo(config: DataConfig, split: Split) -> Listing:
    """A split of YOLO txt: image folders with their subfolders, or lists of images, found by ``look_along`` the list's folder.

    The labels of ``images/a/1.jpg`` are in ``labels/a/1.txt``, the last ``images`` of the path being replaced, or else in
    the ``1.txt`` beside it; an image without either is background. Without ``names`` in the YAML they are read from the
    file of names that labelling tools leave.
    """
    root, folders = Path(config.root), Folders()
    sources = [root / path for path in split_paths(config, split)]
    findings: list[Finding] = []
    paths: list[Path] = []
    for source in sources:
        if source.is_dir():
            paths += _in_folder(source)
        elif source.is_file():
            paths += [look_along(source.parent, name, folders) for name in _listed(source, split, findings)]
        else:
            raise YolomishError(f"{source} is neither a folder of images nor a list of them")
    names = config.names or _names_near(root, sources)
    if not names:
        raise YolomishError(f"YOLO txt data in {sources[0]} needs names: [...] in its YAML, or a {NAMES[0]} beside it")
    listing = _images(list(dict.fromkeys(paths)), names, sources[0], split, findings)
    orphans = _passed_over([source for source in sources if source.is_dir()], listing.records, split)
    return Listing(**(vars(listing) | {"findings": (*listing.findings, *orphans)}))


def look_along(folder: Path, name: str, folders: Folders) -> Path:
    """The file that a list, or a .data file, in ``folder`` means: Darknet's paths start where it is run, which may be a folder
    above, and CVAT's at a folder that is not in its archive, so leading folders are left out until a file is there."""
    path = Path(name.replace("\\", "/"))
    candidates = [folder / name, folder / path, folder.parent / path]
    candidates += [folder / Path(*path.parts[i:]) for i in range(1, len(path.parts))]
    return next((candidate for candidate in candidates if folders.has(candidate)), candidates[0])


def _images(paths: Sequence[Path], names: tuple[str, ...], source: Path, split: Split, findings: list[Finding]) -> Listing:
    """Images with the label files that belong to them. A line is ``class cx cy w h`` or ``class x y x y x y ...``, a polygon,
    of which the box around it is taken. Boxes without area are left out. ``findings`` are those found so far."""
    sizes, more = image_sizes(paths, [None] * len(paths), split)
    found = [*findings, *more]
    folders, records, outlines = Folders(), [], 0
    for image_id, (path, size) in enumerate(zip(paths, sizes, strict=True), 1):
        file = _label_file(path, folders)
        lines = list(_lines(file, split, names, found)) if file else []
        h, w = size or (1, 1)  # such a set is not opened: its picture is missing or broken
        boxes = [(x0 * w, y0 * h, x1 * w, y1 * h) for x0, y0, x1, y1 in (line.box for line in lines)]
        labels, where = [line.label for line in lines], [line.where for line in lines]
        records.append(Record.of(path, image_id, size, boxes, labels, file=file, where=where))
        outlines += sum(line.polygon for line in lines)
    return Listing(
        source=source,
        names=names,
        category_ids=tuple(range(1, len(names) + 1)),
        records=tuple(records),
        findings=tuple(found),
        outlines=outlines,
    )


def _in_folder(source: Path) -> list[Path]:
    """The pictures in a folder and its subfolders, links to folders included, each folder once."""
    found: list[Path] = []
    seen: set[str] = set()
    for folder, inner, names in os.walk(source, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            inner.clear()
            continue
        seen.add(real)
        found += [Path(folder, n) for n in names if Path(n).suffix.lower() in SUFFIXES and not n.startswith(".")]
    return sorted(found)


def _listed(source: Path, split: Split, findings: list[Finding]) -> Iterator[str]:
    """The images in a list, one a line, as they stand there; what is none, or stands there twice, becomes a finding."""
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
            yield name


def _labels_folder(folder: Path) -> Path | None:
    """The folder of labels of a folder of images: the last ``images`` of the path is ``labels``; None without one."""
    parts = list(folder.parts)
    if "images" not in parts:
        return None
    last = len(parts) - 1 - parts[::-1].index("images")
    return Path(*parts[:last], "labels", *parts[last + 1 :])


def _label_file(path: Path, folders: Folders) -> Path | None:
    beside = path.with_suffix(".txt")
    labels = _labels_folder(path.parent)
    candidates = [labels / beside.name, beside] if labels else [beside]
    return next((file for file in candidates if folders.has(file)), None)


def _passed_over(sources: Iterable[Path], records: Iterable[Record], split: Split) -> Iterator[Finding]:
    """What is said of label files that belong to no picture: their pictures are missing, or lie elsewhere."""
    used = {record.file for record in records}
    for source in sources:
        labels = _labels_folder(source)
        if labels is None:
            continue
        files = sorted(Path(folder, name) for folder, _, names in os.walk(labels) for name in names if name.endswith(".txt"))
        rest = [file for file in files if file not in used and file.name not in NAMES]
        if rest:
            message = f"{labels}: {len(rest)} label files have no picture in {source}, such as {rest[0]}"
            yield Finding(check="label-passed-over", split=split, message=message)


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
            label, box, polygon = _box(line)
        except ValueError as error:
            findings.append(Finding(check="annotation-malformed", split=split, message=f"{file}{where}: {error}: {shown(line)}"))
            continue
        if not (label.is_integer() and 0 <= label < len(names)):
            message = f"{file}{where}: class {f'{label:g}'!r} is not in 0..{len(names) - 1}, the data set's classes"
            findings.append(Finding(check="label-unknown", split=split, message=message))
        elif box[2] <= box[0] or box[3] <= box[1]:
            findings.append(no_area(split, f"{file}{where}", names[int(label)], box))
        else:
            yield _Line(label=int(label), box=box, where=where, polygon=polygon)


def _box(line: str) -> tuple[float, tuple[float, float, float, float], bool]:
    """The class, the box xyxy in fractions and whether it is a polygon's; ValueError saying what is wrong."""
    label, *values = (number(value) for value in line.split())
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise ValueError("not 'class cx cy w h' and no polygon 'class x y x y x y ...'")
    if not all(0 <= value <= 1 for value in values):
        raise ValueError("coordinates must be fractions of the image in 0..1")
    if len(values) == 4:
        cx, cy, w, h = values
        return label, (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), False
    return label, (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])), True


def _names_near(root: Path, sources: Iterable[Path]) -> tuple[str, ...]:
    """The class names in the file that tools leave in, or beside, folders of images or labels; empty without one."""
    inner = [folder for source in sources if source != root for folder in (source, source.parent)]
    for folder in dict.fromkeys([*inner, root, root / "labels"]):
        for name in NAMES:
            if (folder / name).is_file() and (names := read_names(folder / name)):
                return names
    return ()


def recognise_yolo(path: Path) -> DataConfig | None:
    """A folder with a data.yaml (ultralytics, Roboflow) or dataset.yaml (FiftyOne); or with a file of class names (labelImg,
    Label Studio, Roboflow's Darknet export) and folders of images with labels."""
    if not path.is_dir():
        return None
    for name in ("data.yaml", "dataset.yaml", "data.yml"):
        if (path / name).is_file() and (config := load_data_config(str(path / name))).format != "auto":
            return config
    tops = sorted(top.name for top in path.iterdir() if top.is_dir())
    inner = [name for name in tops if split_of(name)] or sorted(
        f"images/{top.name}" for top in path.glob("images/*") if top.is_dir() and split_of(top.name)
    )
    lone = ["images"] if "images" in tops else ["data"] if "data" in tops else ["."]
    chosen = inner or lone
    if not _names_near(path, [path / name for name in chosen]) or not any(_has_labels(path / name) for name in chosen):
        return None
    folders = [f"{name}/images" if (path / name / "images").is_dir() else name for name in chosen]
    return laid_out("yolo", path, by_split(folders))


def _has_labels(folder: Path) -> bool:
    """Whether a folder of images, or its ``images``, has a label file."""
    places = [folder, folder / "labels", _labels_folder(folder)]
    return any(file.name not in NAMES for place in places if place for file in place.rglob("*.txt"))


def label_lines(record: Record) -> str:
    """A record's boxes as lines of ``class cx cy w h`` in fractions."""
    sides = fractions(record)
    values = np.concatenate(((sides[:, :2] + sides[:, 2:]) / 2, sides[:, 2:] - sides[:, :2]), 1).clip(0, 1)
    rows = zip(record.labels.tolist(), values.tolist(), strict=True)
    return "".join(f"{label} {' '.join(map(short, row))}\n" for label, row in rows)


def write_yolo(folder: Path, whole: WholeSet) -> None:
    """data.yaml as ultralytics reads it, and labels/SPLIT/*.txt."""
    for split, records in whole.splits.items():
        (folder / "labels" / split).mkdir(parents=True)
        for record in records:
            (folder / "labels" / split / f"{record.path.stem}.txt").write_text(label_lines(record), encoding="utf-8")
    paths: dict[str, str] = {split: f"images/{split}" for split in whole.splits}
    paths = dict.fromkeys(("train", "val"), next(iter(paths.values()))) | paths
    text = yaml.safe_dump({**paths, "names": dict(enumerate(whole.names))}, sort_keys=False, allow_unicode=True)
    (folder / "data.yaml").write_text(text, encoding="utf-8")


TXT_KEEPS: frozenset[Kept] = frozenset({"empty classes", "class order"})
YOLO_TXT = DataFormat(
    name="yolo",
    read=read_yolo,
    recognise=recognise_yolo,
    writer=Writer(pictures=lambda split: f"images/{split}", write=write_yolo, keeps=TXT_KEEPS, clips=True, least=0.0),
)
