"""Where the lost AP goes: TIDE's error types (Bolya et al. 2020, arXiv:2008.08115) and what fixing each would add."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from yolomish.evaluation.matching import Matched, average_precision

BACKGROUND_IOU = 0.1
FALSE_TYPES = ("classification", "localisation", "both", "duplicate", "background")
ERROR_TYPES = (*FALSE_TYPES, "missed")


@dataclass(frozen=True, kw_only=True)
class ErrorBreakdown:
    """AP at the matching's IoU, how many errors of each type there are, and the AP that an oracle for it would add.

    ``gains`` has the keys of ``counts`` and also ``false_positives`` (all wrong detections ranked last) and
    ``false_negatives`` (all objects not found taken from the ground truth). The gains do not add up: fixing one type
    uncovers others.
    """

    iou: float
    ap: float
    counts: dict[str, int]
    gains: dict[str, float]


def classify(matched: Matched) -> np.ndarray:
    """The type of every detection (D,): an index into ``FALSE_TYPES``, -1 for a true one or one in a crowd."""
    best = np.maximum(matched.own_iou, matched.other_iou)
    right_place = matched.own_iou >= BACKGROUND_IOU
    conditions = [
        matched.true | matched.ignored,
        right_place & (matched.own_iou <= matched.iou),
        matched.other_iou >= matched.iou,
        matched.taken_iou >= matched.iou,
        best <= BACKGROUND_IOU,
    ]
    return np.select(conditions, [-1, 1, 0, 3, 4], 2)


def error_breakdown(matched: Matched) -> ErrorBreakdown:
    """Count the errors and fix each type by itself, by section 2.2 of the paper.

    Classification: the detection gets its object's class; localisation: its object's box; either is a hit if it is the
    best-scoring one for an object that was not found, and is dropped otherwise. Both wrong, duplicate and background
    detections are dropped. Missed objects, which no fixed detection could find, leave the ground truth.
    """
    kinds = classify(matched)
    counted = ~matched.ignored
    objects = matched.objects_per_class()
    present = np.nonzero(objects)[0]

    aim = np.select([kinds == 0, kinds == 1], [matched.other_object, matched.own_object], -1)
    reachable = aim >= 0
    reachable[reachable] = ~matched.found[aim[reachable]]
    winners: np.ndarray = np.zeros(len(kinds), bool)
    winners[np.nonzero(reachable)[0][np.unique(aim[reachable], return_index=True)[1]]] = True  # best first: the first wins
    missed = ~matched.found
    missed[aim[reachable]] = False

    def mean_ap(labels: np.ndarray, scores: np.ndarray, true: np.ndarray, positives: np.ndarray) -> float:
        values = []
        for k in present:
            mine = labels == k
            if positives[k] or mine.any():
                values.append(average_precision(scores[mine], true[mine], int(positives[k])))
        return float(np.mean(values)) if values else 0.0

    def without(kind: int) -> float:
        keep = counted & ((kinds != kind) | winners)
        labels, true = matched.labels.copy(), matched.true.copy()
        fixed = winners & (kinds == kind)
        true[fixed] = True
        labels[fixed] = matched.object_labels[aim[fixed]]
        return mean_ap(labels[keep], matched.scores[keep], true[keep], objects)

    arrays = (matched.labels[counted], matched.scores[counted], matched.true[counted])
    base = mean_ap(*arrays, objects)

    def fewer(gone: np.ndarray) -> float:
        return mean_ap(*arrays, objects - np.bincount(matched.object_labels[gone], minlength=matched.classes))

    fixed_ap = {name: without(kind) for kind, name in enumerate(FALSE_TYPES)}
    fixed_ap |= {
        "missed": fewer(missed),
        "false_positives": mean_ap(arrays[0], arrays[2].astype(float), arrays[2], objects),
        "false_negatives": fewer(~matched.found),
    }
    counts = {name: int((kinds == kind).sum()) for kind, name in enumerate(FALSE_TYPES)}
    return ErrorBreakdown(
        iou=matched.iou,
        ap=base,
        counts=counts | {"missed": int(missed.sum())},
        gains={name: max(value - base, 0.0) for name, value in fixed_ap.items()},
    )
