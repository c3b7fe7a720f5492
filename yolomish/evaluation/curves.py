"""Precision, recall and F1 of each class over the confidence threshold, and the threshold that is best for F1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from yolomish.evaluation.matching import Matched, average_precision, precision_recall


@dataclass(frozen=True, kw_only=True)
class ClassCurve:
    """One class: ``confidence`` falling (D,), and precision, recall and F1 when all down to it are kept."""

    name: str
    objects: int
    ap: float
    confidence: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray

    def best(self) -> tuple[float, float]:
        """The confidence of the highest F1, and that F1; (0, 0) without detections."""
        if not len(self.f1):
            return 0.0, 0.0
        i = int(self.f1.argmax())
        return float(self.confidence[i]), float(self.f1[i])

    def at(self, confidence: np.ndarray) -> np.ndarray:
        """F1 at thresholds: that of the last detection not below each."""
        kept = np.searchsorted(-self.confidence, -confidence, side="right")
        return np.where(kept > 0, self.f1[np.maximum(kept, 1) - 1], 0.0) if len(self.f1) else np.zeros(len(confidence))


def class_curves(matched: Matched, names: tuple[str, ...]) -> list[ClassCurve]:
    """A curve for every class with objects, in label order. Detections in crowds are left out."""
    curves = []
    for label, count in enumerate(matched.objects_per_class()):
        if not count:
            continue
        mine = (matched.labels == label) & ~matched.ignored
        scores, true = matched.scores[mine], matched.true[mine]
        precision, recall = precision_recall(true, int(count))
        total = precision + recall
        f1 = np.divide(2 * precision * recall, total, out=np.zeros(len(total)), where=total > 0)
        curves.append(
            ClassCurve(
                name=names[label],
                objects=int(count),
                ap=average_precision(scores, true, int(count)),
                confidence=scores,
                precision=precision,
                recall=recall,
                f1=f1,
            )
        )
    return curves


def best_threshold(curves: list[ClassCurve]) -> tuple[float, float]:
    """The one confidence with the highest F1 averaged over classes, and that F1, on a grid of 0.001; (0, 0) without classes."""
    if not curves:
        return 0.0, 0.0
    grid = np.linspace(0, 1, 1001)
    mean = np.mean([curve.at(grid) for curve in curves], axis=0)
    i = int(mean.argmax())
    return float(grid[i]), float(mean[i])
