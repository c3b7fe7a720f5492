"""COCO JSON: ids, areas and crowds as stated, made numbers where they are text; annotation ids are not used."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from yolomish.config import DataConfig
from yolomish.data.formats.record import (
    MAX_ID,
    MAX_PX,
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
    whole,
)
from yolomish.data.formats.writing import WholeSet, Writer
from yolomish.errors import YolomishError
from yolomish.files import read_text, write_json

LAYOUTS = (
    "annotations/instances_*.json",
    "_annotations.coco.json",
    "*/_annotations.coco.json",
    "labels.json",
    "*/labels.json",
    "result.json",
    "result_coco.json",
    "*.json",
)
Box = tuple[float, float, float, float]


def read_coco(config: DataConfig, split: Split) -> Listing:
    """A split of COCO JSON and its image folder, or the folder found by ``picture_folders``. A test split may hold images and
    categories alone."""
    root, file = Path(config.root), Path(config.root) / split_path(config, split)
    named = getattr(config, f"{split}_images")
    return read_coco_file(file, [root / named] if named else picture_folders(root, file, split), split)


def picture_folders(root: Path, file: Path, split: Split) -> list[Path]:
    """Where the pictures of an annotation file may be: the root, beside the file, and where CVAT, FiftyOne, Label Studio,
    Roboflow and COCO itself have them."""
    home, above = file.parent, file.parent.parent
    subset = file.stem.removeprefix("instances_").removeprefix("person_keypoints_")
    inner = [name for part in (subset, split) for name in (f"images/{part}", part)]
    return [root, home, *(place / name for place in (home, above) for name in (*inner, "images", "data"))]


def read_coco_file(file: Path, folders: Sequence[Path], split: Split) -> Listing:
    """``file`` with the images in one of ``folders``, the first that has its first image; boxes whose annotation is malformed
    are left out and become findings."""
    content = _content(file)
    items: dict[str, list[Any]] = {}
    for key in ("categories", "images", "annotations"):
        value = content.get(key)
        if value is None and key == "annotations" and split == "test":
            value = []
        if not isinstance(value, list):
            raise YolomishError(f"{file} is not a COCO annotation file: its {key} must be a list, not {shown(value)}")
        items[key] = value
    faults: list[str] = []
    names, label_of = _categories(items["categories"], file, faults)
    images, findings = _images(items["images"], file, folders, split, faults)
    rows: dict[int, list[tuple[float, ...]]] = {image_id: [] for image_id in images}  # x0, y0, x1, y1, label, area, crowd
    places: dict[int, list[str]] = {image_id: [] for image_id in images}
    orphans: Counter[int] = Counter()
    outlines = 0
    for index, item in enumerate(items["annotations"]):
        where = _where(item, index)
        try:
            image_id, category, box, area, crowd = _annotation(item)
        except ValueError as error:
            faults.append(f"{file}{where}: {error}")
            continue
        if image_id not in rows:
            orphans[image_id] += 1
        elif category not in label_of:
            message = f"{file}{where}: class {str(category)!r} is not one of the data set's"
            findings.append(Finding(check="label-unknown", split=split, message=message))
        else:
            rows[image_id].append((*box, label_of[category], area, crowd))
            outlines += bool(item.get("segmentation"))
            places[image_id].append(where)
    faults += [f"{file}: {count} annotations of image {i}, which is not listed" for i, count in orphans.items()]
    paths, stated = [path for path, _ in images.values()], [size for _, size in images.values()]
    sizes, more = image_sizes(paths, stated, split)
    findings += more
    findings += [Finding(check="annotation-malformed", split=split, message=fault) for fault in faults]
    records = tuple(
        _record(path, image_id, size, rows[image_id], file, tuple(places[image_id]))
        for path, size, image_id in zip(paths, sizes, images, strict=True)
    )
    return Listing(
        source=file,
        names=names,
        category_ids=tuple(label_of),
        records=records,
        findings=tuple(findings),
        own_ids=True,
        annotated="annotations" in content,
        outlines=outlines,
    )


def recognise_coco(path: Path) -> DataConfig | None:
    """An annotation file, or a folder with one a split: COCO's and CVAT's annotations/instances_*.json, Roboflow's
    _annotations.coco.json, FiftyOne's labels.json, Label Studio's result.json, or train.json and val.json."""
    if path.is_file() and path.suffix.lower() == ".json":
        return DataConfig(format="coco", root=str(path.parent), train=path.name, val=path.name)
    for pattern in LAYOUTS if path.is_dir() else ():
        files = sorted(str(file.relative_to(path)) for file in path.glob(pattern))
        if splits := by_split(file for file in files if pattern != "*.json" or split_of(file)):
            return laid_out("coco", path, splits)
    return None


def _content(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise YolomishError(f"{file} is not a COCO annotation file: {type(error).__name__}: {error}") from None
    if not isinstance(content, dict):
        raise YolomishError(f"{file} is not a COCO annotation file: it holds {shown(content)}, not a mapping")
    return content


def _categories(items: list[Any], file: Path, faults: list[str]) -> tuple[tuple[str, ...], dict[int, int]]:
    """The names by rising id and the label of each id. Roboflow's parent of all classes, which no box has, is left out."""
    parents = {item.get("supercategory") for item in items if isinstance(item, dict) and _is_text(item.get("supercategory"))}
    found: dict[int, str] = {}
    for index, item in enumerate(items):
        try:
            if not isinstance(item, dict):
                raise ValueError(f"{shown(item)} is no mapping")
            category, name = _id(item, "id"), item.get("name")
            if not _is_text(name):
                raise ValueError(f"the name must be a text, not {shown(name)}")
            if category in found:
                raise ValueError(f"id {category} is {found[category]!r} already: give each class an id of its own")
            if name in found.values():
                raise ValueError(f"{name!r} has another id already: join the two")
        except ValueError as error:
            faults.append(f"{file} categories[{index}]: {error}")
            continue
        if item.get("supercategory") != "none" or name not in parents:
            found[category] = name
    ids = sorted(found)
    return tuple(found[i] for i in ids), {category: label for label, category in enumerate(ids)}


def _is_text(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value)


def _images(
    items: list[Any], file: Path, folders: Sequence[Path], split: Split, faults: list[str]
) -> tuple[dict[int, tuple[Path, tuple[int, int] | None]], list[Finding]]:
    """Path and stated size of each image by id. Of two images with one id, or one file, the first is kept."""
    found: dict[int, tuple[Path, tuple[int, int] | None]] = {}
    id_of: dict[str, int] = {}
    findings, seen = [], Folders()
    folder: Path | None = None
    for index, item in enumerate(items):
        try:
            if not isinstance(item, dict):
                raise ValueError(f"{shown(item)} is no mapping")
            image_id, name = _id(item, "id"), item.get("file_name")
            if not _is_text(name) or "\0" in name:
                raise ValueError(f"file_name must be a file's name, not {shown(name)}")
            size = stated_size(item.get("height"), item.get("width"))
        except ValueError as error:
            faults.append(f"{file} images[{index}]: {error}")
            continue
        twice = ""
        if image_id in found:
            twice = f"image id {image_id} is {found[image_id][0].name} and {name}"
        elif name in id_of:
            twice = f"{name} is image {id_of[name]} and {image_id}"
        if twice:
            message = f"{file} images[{index}]: {twice}: number the images anew, each listed once"
            findings.append(Finding(check="image-listed-twice", split=split, message=message))
            continue
        if folder is None:
            folder = next((place for place in folders if seen.has(_picture(place, name, seen))), folders[0])
        found[image_id], id_of[name] = (_picture(folder, name, seen), size), image_id
    return found, findings


def _picture(folder: Path, name: str, seen: Folders) -> Path:
    """The picture of a ``file_name``, which Label Studio writes as Windows or its server would, too."""
    path = folder / name
    if not seen.has(path):
        plain = name.replace("\\", "/")
        for other in (folder / plain, folder / plain.rpartition("/")[2]):
            if seen.has(other):
                return other
    return path


def stated_size(height: Any, width: Any) -> tuple[int, int] | None:
    """(height, width) in px; None where one is missing, empty or 0; ValueError where one is no whole number of px."""
    if any(value is None or value == "" for value in (height, width)):
        return None
    size = whole(height), whole(width)
    if min(size) < 0:
        raise ValueError(f"width {shown(width)} and height {shown(height)} must be positive")
    return size if all(size) else None


def _annotation(item: Any) -> tuple[int, int, Box, float, bool]:
    """Image id, category id, box xyxy, area and crowd; ValueError saying what is wrong. Area and crowd may be missing."""
    if not isinstance(item, dict):
        raise ValueError(f"{shown(item)} is no mapping")
    bbox = item.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise ValueError(f"bbox must be [x, y, width, height], not {shown(bbox)}")
    try:
        x, y, w, h = map(number, bbox)
    except ValueError as error:
        raise ValueError(f"bbox {shown(bbox)}: {error}") from None
    if not (0 <= w <= MAX_PX and 0 <= h <= MAX_PX and abs(x) <= MAX_PX and abs(y) <= MAX_PX):
        raise ValueError(f"bbox {shown(bbox)}: width and height must not be negative, and nothing over {MAX_PX:g} px")
    image_id, category = _id(item, "image_id"), _id(item, "category_id")
    area, crowd = item.get("area"), item.get("iscrowd")
    try:
        area = w * h if area is None else number(area)
    except ValueError as error:
        raise ValueError(f"area {error}") from None
    if crowd not in (None, 0, 1, "0", "1"):
        raise ValueError(f"iscrowd must be 0 or 1, not {shown(crowd)}")
    return image_id, category, (x, y, x + w, y + h), area, crowd in (1, "1")


def _where(item: Any, index: int) -> str:
    if not isinstance(item, dict) or "id" not in item:
        return f" annotations[{index}]"
    own = item["id"]
    return f" annotation {own if type(own) is int and abs(own) <= MAX_ID else shown(own)}"


def _id(item: dict[str, Any], key: str) -> int:
    try:
        return whole(item.get(key))
    except ValueError as error:
        raise ValueError(f"{key} {error}: COCO's are whole numbers") from None


def _record(
    path: Path, image_id: int, size: tuple[int, int] | None, rows: list[tuple[float, ...]], file: Path, where: tuple[str, ...]
) -> Record:
    values = np.array(rows, np.float64).reshape(-1, 7)
    return Record(
        path=path,
        image_id=image_id,
        size_hw=size,
        boxes=values[:, :4],
        labels=values[:, 4].astype(np.int64),
        areas=values[:, 5],
        crowd=values[:, 6] > 0,
        ignore=np.zeros(len(values), bool),
        file=file,
        where=where,
    )


def write_coco(folder: Path, whole: WholeSet) -> None:
    """annotations/instances_SPLIT.json, with image and category ids as they are and annotation ids from 1."""
    categories = [{"id": i, "name": n, "supercategory": ""} for i, n in zip(whole.category_ids, whole.names, strict=True)]
    (folder / "annotations").mkdir()
    for split, records in whole.splits.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for record in records:
            h, w = record.size_hw or (0, 0)
            images.append({"id": record.image_id, "file_name": record.path.name, "width": w, "height": h})
            columns = (record.boxes, record.labels, record.areas, record.crowd)
            for (x0, y0, x1, y1), label, area, crowd in zip(*(column.tolist() for column in columns), strict=True):
                box = [round(v, 9) for v in (x0, y0, x1 - x0, y1 - y0)]  # as it stood: 2.3 + 4.1 - 2.3 is not 4.1
                item = {"id": len(annotations) + 1, "image_id": record.image_id, "category_id": whole.category_ids[label]}
                annotations.append({**item, "bbox": box, "area": area, "iscrowd": int(crowd), "segmentation": []})
        content = {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}
        write_json(folder / "annotations" / f"instances_{split}.json", content)


COCO_JSON = DataFormat(
    name="coco",
    read=read_coco,
    recognise=recognise_coco,
    writer=Writer(
        pictures=str,
        write=write_coco,
        keeps=frozenset({"image ids", "category ids", "crowds", "areas", "empty classes", "class order"}),
    ),
)
