"""Precision over recall, as COCO samples it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from pycocotools.coco import COCO

from yolomish.evaluation.coco import run_cocoeval


def plot_precision_recall(truth: COCO, results: list[dict], names: Sequence[str], path: str | Path) -> None:
    """Write a PNG: precision at IoU 0.5 over recall of each class (at most 20 in the legend) and their mean."""
    evaluation = run_cocoeval(truth, results)
    precision = evaluation.eval["precision"][0, :, :, 0, 2]  # (recall, class) at IoU 0.5
    recall = evaluation.params.recThrs
    present = [k for k in range(precision.shape[1]) if precision[0, k] > -1]
    figure, axis = plt.subplots(figsize=(7, 5), layout="constrained")
    for k in present:
        label = f"{names[k]} {precision[:, k].mean():.3f}" if len(present) <= 20 else None
        axis.plot(recall, precision[:, k], linewidth=1, alpha=0.8, label=label)
    if present:
        mean = np.mean(precision[:, present], axis=1)
        axis.plot(recall, mean, color="black", linewidth=2.5, label=f"mean {mean.mean():.3f}")
    axis.set(xlabel="recall", ylabel="precision", title="Precision over recall at IoU 0.5", xlim=(0, 1), ylim=(0, 1.02))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
