"""Open Images: boxes of all pictures in one CSV, as fractions, with class ids that another CSV names."""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from yolomish.config import DataConfig
from yolomish.data.formats.record import (
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
    split_path,
)
from yolomish.data.formats.writing import WholeSet, Writer, fractions, short
from yolomish.data.images import SUFFIXES
from yolomish.errors import YolomishError
from yolomish.files import read_text

COLUMNS = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")
# beside the boxes, in the set's folder, or where FiftyOne puts it
DESCRIPTIONS = ("class-descriptions*.csv", "*class-descriptions*.csv", "classes.csv")


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A box xyxy as fractions of its image; ``group``: round several objects, of which no one is marked."""

    label: str
    box: tuple[float, float, float, float]
    group: bool
    where: str


def read_openimages(config: DataConfig, split: Split) -> Listing:
    """A split of Open Images: a CSV of boxes and the folder of its pictures, or the folder found near it.

    Every picture in the folder is one of the split; boxes of others are passed over and counted. The classes are those that
    train or val have a box of, in the order of the class descriptions, by their names there. A group of objects
    (``IsGroupOf``) is a crowd.
    """
    root = Path(config.root)
    file = root / split_path(config, split)
    findings: list[Finding] = []
    rows = _rows(file, split, findings)
    pictures = _pictures(root, file, split, getattr(config, f"{split}_images"))
    name_of = _descriptions(root, file)
    names = config.names or _names(root, config, {file: rows}, name_of)
    label_of = {name: label for label, name in enumerate(names)}
    absent = {image: len(boxes) for image, boxes in rows.items() if image not in pictures}
    if absent:
        message = f"{file}: {sum(absent.values())} boxes of {len(absent)} images have no picture there and are passed over"
        findings.append(Finding(check="label-passed-over", split=split, message=f"{message}, such as {next(iter(absent))}"))
    sizes, more = image_sizes(list(pictures.values()), [None] * len(pictures), split)
    findings += more
    records = []
    for image_id, ((image, path), size) in enumerate(zip(pictures.items(), sizes, strict=True), 1):
        h, w = size or (1, 1)  # such a set is not opened: its picture is missing or broken
        kept = []
        for row in rows.get(image, ()):
            name = name_of.get(row.label, row.label)
            if name in label_of:
                kept.append((label_of[name], row))
            else:
                message = f"{file}{row.where}: class {shown(name)} is not one of the data set's"
                findings.append(Finding(check="label-unknown", split=split, message=message))
        boxes = [(x0 * w, y0 * h, x1 * w, y1 * h) for x0, y0, x1, y1 in (row.box for _, row in kept)]
        labels, crowd, where = ([f(k) for k in kept] for f in (lambda k: k[0], lambda k: k[1].group, lambda k: k[1].where))
        records.append(Record.of(path, image_id, size, boxes, labels, crowd=crowd, file=file, where=where))
    return Listing(
        source=file,
        names=names,
        category_ids=tuple(range(1, len(names) + 1)),
        records=tuple(records),
        findings=tuple(findings),
    )


def _table(file: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        for number_, row in enumerate(csv.reader(read_text(file).splitlines()), 1):
            if row:
                yield number_, row
    except csv.Error as error:
        raise YolomishError(f"{file} is no CSV: {error}") from None


def _rows(file: Path, split: Split, findings: list[Finding]) -> dict[str, list[_Row]]:
    """The boxes of each image's id; lines that hold none become findings. YolomishError without the columns."""
    table = _table(file)
    _, header = next(table, (0, []))
    if missing := [column for column in COLUMNS if column not in header]:
        raise YolomishError(f"{file} holds no boxes of Open Images: it has no column {', '.join(missing)}")
    place = {column: header.index(column) for column in header}
    found: dict[str, list[_Row]] = defaultdict(list)
    for index, row in table:
        try:
            if len(row) != len(header):
                raise ValueError(f"{len(row)} values for {len(header)} columns")
            x0, x1, y0, y1 = (number(row[place[column]]) for column in COLUMNS[2:])
            if not all(0 <= value <= 1 for value in (x0, x1, y0, y1)):
                raise ValueError("coordinates must be fractions of the image in 0..1")
        except ValueError as error:
            findings.append(Finding(check="annotation-malformed", split=split, message=f"{file}:{index}: {error}"))
            continue
        group = "IsGroupOf" in place and row[place["IsGroupOf"]].strip() == "1"
        item = _Row(label=row[place["LabelName"]], box=(x0, y0, x1, y1), group=group, where=f":{index}")
        found[row[place["ImageID"]]].append(item)
    return found


def _pictures(root: Path, file: Path, split: Split, named: str) -> dict[str, Path]:
    """The pictures of a split by image id, their name without suffix, in the first of their possible folders with any."""
    words = [word for word in re.findall("[a-z]+", file.stem.lower()) if word in WORDS] or [split]
    inner = [root / name for name in (words[0], f"images/{words[0]}", split)]
    places = [*inner, file.parent.parent / "data", root / "data", root / "images", root]
    folders = Folders()
    for place in [root / named] if named else places:
        found = {Path(n).stem: place / n for n in sorted(folders.names(place)) if Path(n).suffix.lower() in SUFFIXES}
        if found:
            return found
    raise YolomishError(f"no pictures of {file} are in {', '.join(str(p) for p in ([root / named] if named else places[:3]))}")


def _descriptions(root: Path, file: Path) -> dict[str, str]:
    """The name of each class id; empty without such a file."""
    for folder in (file.parent, root, file.parent.parent / "metadata", root / "metadata"):
        for pattern in DESCRIPTIONS:
            for found in sorted(folder.glob(pattern)):
                return {row[0]: row[1] for _, row in _table(found) if len(row) > 1 and row[0] != "LabelName"}
    return {}


def _names(root: Path, config: DataConfig, known: dict[Path, dict[str, list[_Row]]], name_of: dict[str, str]) -> tuple[str, ...]:
    used: Counter[str] = Counter()
    for split in SPLITS[:2]:
        if getattr(config, split):
            file = root / split_path(config, split)
            rows = known[file] if file in known else _rows(file, split, [])
            used.update(_labels(rows.values(), name_of))
    order = {name: place for place, name in enumerate(name_of.values())}
    return tuple(sorted(used, key=lambda name: (order.get(name, len(order)), name)))


def _labels(rows: Iterable[list[_Row]], name_of: dict[str, str]) -> Iterator[str]:
    return (name_of.get(row.label, row.label) for boxes in rows for row in boxes)


def recognise_openimages(path: Path) -> DataConfig | None:
    """A CSV of boxes, or a folder with one a split: as Open Images has them, or FiftyOne's labels/detections.csv."""
    if path.is_file() and path.suffix.lower() == ".csv":
        return DataConfig(format="openimages", root=str(path.parent), train=path.name, val=path.name)
    for pattern in ("*annotations-bbox.csv", "*/labels/detections.csv", "labels/detections.csv") if path.is_dir() else ():
        if splits := by_split(sorted(str(file.relative_to(path)) for file in path.glob(pattern))):
            return laid_out("openimages", path, splits)
    return None


def write_openimages(folder: Path, whole: WholeSet) -> None:
    """WORD-annotations-bbox.csv and class-descriptions-boxable.csv, in which a class is its own id; what is not known of a
    box (occluded, truncated, depiction, inside) is -1."""
    with (folder / "class-descriptions-boxable.csv").open("w", encoding="utf-8", newline="") as out:
        csv.writer(out, lineterminator="\n").writerows((name, name) for name in whole.names)
    for split, records in whole.splits.items():
        with (folder / f"{FOLDERS[split]}-annotations-bbox.csv").open("w", encoding="utf-8", newline="") as out:
            table = csv.writer(out, lineterminator="\n")
            unknown = ("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside")
            table.writerow(("ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax", *unknown))
            for record in records:
                for box, label, crowd in zip(fractions(record).tolist(), record.labels, record.crowd, strict=True):
                    x0, y0, x1, y1 = (short(min(max(value, 0.0), 1.0)) for value in box)
                    told = (record.path.stem, "yolomish", whole.names[label], 1, x0, x1, y0, y1)
                    table.writerow((*told, -1, -1, int(crowd), -1, -1))


FOLDERS: dict[Split, str] = {"train": "train", "val": "validation", "test": "test"}
OPEN_IMAGES = DataFormat(
    name="openimages",
    read=read_openimages,
    recognise=recognise_openimages,
    writer=Writer(
        pictures=lambda split: FOLDERS[split],
        write=write_openimages,
        keeps=frozenset({"crowds", "class order"}),
        clips=True,
        least=0.0,
    ),
)
