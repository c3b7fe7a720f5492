"""COCO result files of any tool, not taken on trust: what can be told is put right and said, what cannot is refused."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from yolomish.data.datasets import DetectionData
from yolomish.data.formats.record import number, shown, whole
from yolomish.errors import YolomishError, first_line
from yolomish.evaluation.coco_results import CocoResults, entries

TOLERANCE = 2.0  # px beyond an image's border
FRACTION = 1.5  # boxes no larger are in fractions of an image that is larger
XYXY_SHARE = 0.1  # of boxes that leave the image as xywh though none does as xyxy
LOPSIDED = 0.1  # of the images: how many more an arm may lack than another


@dataclass(frozen=True, kw_only=True)
class Results:
    """The detections of a file in the data's image and category ids, and ``notes``: what was put right or is odd, each with its
    count and the first example."""

    detections: CocoResults
    notes: tuple[str, ...]


def read_results(file: Path, data: DetectionData) -> Results:
    """The detections of a COCO result file; YolomishError, with the count and the first example, for what is no result.

    Numbers as text become numbers. Image ids that are file names, and classes counted from 0 or 1 where the data's ids are
    others, are translated. Refused: what is no finite number, ids of other images, no known class, boxes that are xyxy
    or fractions of the image. Said: boxes beyond their image, boxes without area, scores over 1, equal entries, other classes.
    """
    columns, texts = _columns(file)
    notes = [f"{len(texts):,} numbers are text, taken as numbers (the first: {texts[0]})"] if texts else []
    try:
        image_ids = _image_ids(columns["image_id"], data, notes)
        categories = _categories(columns["category_id"], data, notes)
        boxes = np.array(columns["bbox"], np.float64).reshape(-1, 4)
        scores = np.array(columns["score"], np.float64)
        _check_boxes(boxes, image_ids, data, notes)
        if len(over := np.flatnonzero((scores < 0) | (scores > 1))):
            notes.append(
                f"{len(over):,} scores are outside 0..1; only their order counts (the first: entry {over[0]} has score "
                f"{scores[over[0]]:g})"
            )
    except ValueError as error:
        raise YolomishError(f"{file}: {error}") from None
    known = np.array([category is not None for category in categories], bool)
    ids = np.array([category or 0 for category in categories], np.int64)
    found = CocoResults(np.array(image_ids, np.int64), ids, boxes, scores)[known]
    if len(again := _repeated(found)):
        notes.append(
            f"{len(again):,} entries are there before, box and score: each counts as a false alarm (the first: entry {again[0]})"
        )
    return Results(detections=found, notes=tuple(f"{file.name}: {note}" for note in notes))


def _repeated(found: CocoResults) -> np.ndarray:
    """The rows that equal an earlier one, in ascending order."""
    columns = np.stack((found.image_ids, found.category_ids, *found.boxes.T, found.scores))  # ids are at most 2^53
    order = np.lexsort(columns)
    same = (columns[:, order[1:]] == columns[:, order[:-1]]).all(0)
    return np.sort(order[1:][same])


def _rows(file: Path) -> Iterator[Any]:
    try:
        yield from entries(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise YolomishError(f"{file} cannot be read: {error.strerror}") from None
    except RecursionError:
        raise YolomishError(f"{file} is nested too deeply for a list of COCO results") from None
    except ValueError as error:  # UnicodeDecodeError too
        raise YolomishError(f"{file} is not JSON: {first_line(error)}") from None
    except TypeError as error:
        raise YolomishError(
            f"{file} holds {error}, not a list of COCO results: name a file with the list of detections alone"
        ) from None


def _columns(file: Path) -> tuple[dict[str, list[Any]], list[str]]:
    """The four columns, as numbers but for image ids that are text, and where numbers were text."""
    columns: dict[str, Any] = {"image_id": [], "category_id": [], "bbox": array("d"), "score": array("d")}
    texts: list[str] = []
    faults: list[str] = []
    count = 0
    for i, row in enumerate(_rows(file)):
        count += 1
        try:
            image_id, category, box, score = row["image_id"], row["category_id"], row["bbox"], row["score"]
            if not isinstance(box, list) or len(box) != 4:
                raise ValueError(f"bbox {shown(box)} is no list of four")
            columns["image_id"].append(_image_id(image_id))
            columns["category_id"].append(_named("category_id", category, whole))
            columns["bbox"].extend([_named("bbox", value, number) for value in box])
            columns["score"].append(_named("score", score, number))
            known = isinstance(columns["image_id"][-1], int)
            if any(isinstance(value, str) for value in (*([image_id] if known else []), category, score, *box)):
                texts.append(f"entry {i}")
        except (KeyError, TypeError, ValueError) as error:
            key = f"no {error}" if isinstance(error, KeyError) else error if isinstance(error, ValueError) else shown(row)
            faults.append(f"entry {i}: {key}")
    if faults:
        raise YolomishError(f"{file}: {len(faults):,} of {count:,} entries are no COCO results (the first: {faults[0]})")
    return columns, texts


def _named(name: str, value: Any, read: Callable[[Any], Any]) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None


def _image_id(value: Any) -> int | str:
    """A whole number, or text that is none: the picture's name, perhaps."""
    try:
        return int(whole(value))
    except ValueError:
        if isinstance(value, str):
            return value
        raise ValueError(f"image_id {shown(value)} is no id") from None


def _image_ids(given: Sequence[int | str], data: DetectionData, notes: list[str]) -> list[int]:
    """The data's ids: as they are, or by the names of the pictures where not all are ids."""
    known = set(data.image_ids)
    foreign = [(i, value) for i, value in enumerate(given) if value not in known]
    if not foreign:
        return [int(value) for value in given]
    by_name: dict[str, list[int]] = {}
    for index, image_id in enumerate(data.image_ids):
        path = data.path(index)
        for name in {path.name, path.stem, path.stem.lstrip("0")}:
            by_name.setdefault(name, []).append(image_id)
    found = [by_name.get(str(value), []) for value in given]
    if all(len(ids) == 1 for ids in found):
        notes.append(
            f"image ids are file names, translated ({len(given):,} entries; the first: {shown(given[0])} is image {found[0][0]})"
        )
        return [ids[0] for ids in found]
    place, value = foreign[0]
    raise ValueError(
        f"{len(foreign):,} of {len(given):,} entries are of images that {data.source} does not have, by id or by name "
        f"(the first: entry {place}, image_id {shown(value)}): are they of another data set?"
    )


def _categories(given: Sequence[int], data: DetectionData, notes: list[str]) -> list[int | None]:
    """The data's category ids: as they are, or counted from 0 or from 1 in the order of the data's classes; None for classes
    that the data does not have."""
    known, classes = set(data.category_ids), len(data.category_ids)
    foreign = [(i, value) for i, value in enumerate(given) if value not in known]
    if not foreign:
        return list(given)
    for first in (0, 1):
        if min(given) >= first and max(given) < first + classes and (first or 0 in given):
            ids = data.category_ids
            notes.append(
                f"classes are counted from {first}, the data's ids from {min(ids)}: taken in the order of its names "
                f"({len(given):,} entries; the first: {given[0]} is {data.names[given[0] - first]!r})"
            )
            return [ids[value - first] for value in given]
    place, value = foreign[0]
    if len(foreign) == len(given):
        raise ValueError(
            f"none of its category ids are those of {data.source} (the first: entry {place}, category_id {value}): "
            "are they of another data set?"
        )
    notes.append(
        f"{len(foreign):,} of {len(given):,} entries are of classes that the data does not have, left out (the first: entry "
        f"{place}, category_id {value})"
    )
    return [value if value in known else None for value in given]


def _check_boxes(boxes: np.ndarray, image_ids: Sequence[int], data: DetectionData, notes: list[str]) -> None:
    """Notes of boxes beyond their image or without area; ValueError where they are not xywh in px."""
    if not len(boxes):
        return
    size_of = {image_id: data.size_hw(index)[::-1] for index, image_id in enumerate(data.image_ids)}
    sizes = np.array([size_of[image_id] for image_id in image_ids], np.float64)
    example = f"the first: entry 0, bbox {shown(boxes[0].tolist())} in an image of {sizes[0, 0]:g}x{sizes[0, 1]:g} px"
    if np.abs(boxes).max() <= FRACTION < sizes.min():
        raise ValueError(f"all {len(boxes):,} boxes are fractions, not px ({example}): multiply them by the image's size")
    over = np.maximum(-boxes[:, :2], boxes[:, :2] + boxes[:, 2:] - sizes).max(1)
    corners = (boxes[:, 2:] > boxes[:, :2]).all() and (boxes[:, 2:] <= sizes + TOLERANCE).all()
    outside = np.flatnonzero(over > TOLERANCE)
    negative = np.flatnonzero((boxes[:, 2:] < 0).any(1))
    if corners and len(outside) > XYXY_SHARE * len(boxes):
        raise ValueError(
            f"{len(outside):,} of {len(boxes):,} boxes leave their image as xywh, none as xyxy (the first: entry {outside[0]}, "
            f"bbox {shown(boxes[outside[0]].tolist())}): COCO results are x, y, width, height"
        )

    def told(places: np.ndarray, what: str) -> str:
        i = int(places[0])
        where = f"entry {i}, bbox {shown(boxes[i].tolist())} in an image of {sizes[i, 0]:g}x{sizes[i, 1]:g} px"
        return f"{len(places):,} of {len(boxes):,} boxes {what} (the first: {where})"

    if len(negative):
        raise ValueError(told(negative, "have a negative width or height"))
    if len(outside):
        notes.append(told(outside, f"reach over {TOLERANCE:g} px beyond their image"))
    if len(flat := np.flatnonzero((boxes[:, 2:] == 0).any(1))):
        notes.append(told(flat, "have no area"))


def require_alike(lacking: dict[str, list[int]], images: int) -> None:
    """YolomishError where files of one arm lack detections on a tenth of the images more than another's, on average."""
    means = {arm: math.fsum(counts) / len(counts) for arm, counts in lacking.items()}
    most, least = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
    if means[most] - means[least] > max(LOPSIDED * images, 1):
        raise YolomishError(
            f"{most} has no detections on {means[most]:g} of {images} images with objects, {least} on {means[least]:g}: does a "
            "file lack "
            "a part? If the detector really finds nothing there, say --allow-missing"
        )
