"""The report of an examined data set: one page with a picture of each finding, and the same as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np

from yolomish.data.check import Examination, by_check, counts
from yolomish.data.formats.record import CHECKS, Finding
from yolomish.data.images import read_image
from yolomish.data.summary import PERCENTILES
from yolomish.drawing.boxes import draw_boxes
from yolomish.drawing.page import jpeg, templates
from yolomish.errors import YolomishError
from yolomish.types import GREY

PICTURES = 12  # of each check
LISTED = 200  # messages of each check
WIDTH, HEIGHT = 280, 210  # px of a picture
AROUND = 1.0  # what is shown on each side of a box, in sides of it, and at least
LEAST = 48  # px

WHY = {
    "split-unreadable": "Nothing of this split can be used until its list or file can be read.",
    "image-listed-twice": "Its boxes would count twice in training and in AP.",
    "annotation-malformed": "These lines hold no box that can be read; they are left out.",
    "image-missing": "The annotations name pictures that are not there.",
    "image-unreadable": "These files cannot be decoded whole.",
    "size-differs": "Boxes are in the frame of a picture of another size: they would lie wrong.",
    "label-unknown": "These boxes are of a class that the data set does not have.",
    "box-outside": "These boxes lie beside their picture.",
    "box-none": "A split without any box trains nothing and has no AP.",
    "classes-differ": "Labels of one split mean other classes in another.",
    "split-overlap-file": "What is trained on may not be evaluated on: AP would be too high.",
    "split-overlap-content": "The same bytes under two names, in two splits: AP would be too high.",
    "split-overlap-near": "These look alike across splits (re-encoded, resized, neighbours in a video): AP may be too high.",
    "box-degenerate": "Boxes without width or height teach nothing; they are left out.",
    "box-clipped": "These boxes reach over the border; training cuts them off, AP compares them as they are.",
    "box-duplicate": "Of equal boxes one can be found, the others always count as missed.",
    "image-duplicate": "The same bytes under two names: this picture weighs double.",
    "image-near-duplicate": "These look alike: such a picture weighs double.",
    "image-passed-over": "Pictures that nothing is said of: they are not trained on.",
    "label-passed-over": "Labels whose picture is not there: they are not trained on.",
    "test-unreadable": "The set names a test split that is not there; training and evaluation of val do without.",
    "exif-rotated": "Shown upright here; tools that ignore EXIF see other pixels under the boxes.",
    "class-empty": "Nothing can be learnt or measured of these classes here.",
    "classes-reordered": "The splits number their classes differently; they are compared by name.",
    "image-empty": "Background teaches what is no object; it is no fault if it is meant.",
    "box-tiny": "At this network size too few pixels are left: a larger size or tiles would show more.",
}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A finding and its JPEGs: none where it is about no picture, or one that cannot be read."""

    finding: Finding
    pictures: tuple[bytes, ...]


def as_values(examination: Examination, findings: Sequence[Finding]) -> dict[str, Any]:
    """What the report says as plain values: counts by severity and by check, what the splits hold, each finding."""
    items = []
    for f in findings:
        item: dict[str, Any] = {"check": f.check, "severity": f.severity, "split": f.split, "message": f.message}
        places = {"image": f.image and str(f.image), "box": f.box and list(f.box), "other": f.other and str(f.other)}
        items.append(item | {key: value for key, value in places.items() if value})
    return {
        "counts": counts(findings),
        "checks": {check: len(group) for check, group in by_check(findings).items()},
        "splits": {split: asdict(summary) for split, summary in examination.summaries.items()},
        "findings": items,
    }


def to_html(title: str, examination: Examination, findings: Sequence[Finding], *, network: str) -> str:
    """The page; ``network`` says at which size sides are given."""
    groups = by_check(findings)
    return (
        templates("yolomish.data")
        .get_template("check.html.j2")
        .render(
            title=title,
            network=network,
            counts=counts(findings),
            checks=CHECKS,
            why=WHY,
            listed=LISTED,
            groups=groups,
            shown={check: _shown(group) for check, group in groups.items()},
            summaries=examination.summaries,
            percentiles=PERCENTILES,
        )
    )


def _shown(group: Sequence[Finding]) -> list[Shown]:
    some = [finding for finding in group if finding.image][:PICTURES]
    shown = [Shown(finding=finding, pictures=tuple(_pictures(finding))) for finding in some]
    return [item for item in shown if item.pictures]


def _pictures(finding: Finding) -> list[bytes]:
    """The finding's picture, cut out around its box where it has one, and the one that it is held against."""
    found = []
    for path in filter(None, (finding.image, finding.other)):
        try:
            image = read_image(path)
        except YolomishError:
            continue
        found.append(jpeg(_fitted(image) if finding.box is None else _around(image, np.array(finding.box))))
    return found


def _fitted(image: np.ndarray) -> np.ndarray:
    h, w = image.shape[:2]
    scale = min(WIDTH / w, HEIGHT / h)
    size = max(1, round(w * scale)), max(1, round(h * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)


def _around(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The box (4,) xyxy in image px with its surroundings, what lies beside the picture in grey."""
    h, w = image.shape[:2]
    sides = np.maximum(box[2:] - box[:2], 0)
    margin = np.maximum(sides * AROUND, LEAST)
    low, high = box[:2] - margin, box[2:] + margin
    low, high = np.maximum(low, np.minimum(box[:2], 0) - LEAST), np.minimum(high, np.maximum(box[2:], (w, h)) + LEAST)
    if ((high <= 0) | (low >= (w, h))).any():  # nothing of the picture would be seen
        low, high = np.minimum(low, 0), np.maximum(high, (w, h))
    low = np.floor(low)
    scale = min(WIDTH / (high[0] - low[0]), HEIGHT / (high[1] - low[1]))
    size = max(2, round((high[0] - low[0]) * scale)), max(2, round((high[1] - low[1]) * scale))
    view = np.array([[scale, 0, -low[0] * scale], [0, scale, -low[1] * scale]])
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    cut = cv2.warpAffine(image, view, size, flags=kind, borderMode=cv2.BORDER_CONSTANT, borderValue=(GREY, GREY, GREY))
    drawn = (box - np.tile(low, 2)) * scale
    drawn[2:] = np.maximum(drawn[2:], drawn[:2] + 2)  # a box without area is drawn as a line or a point
    return draw_boxes(cut, drawn[None], [0], [""], line_width=2)
