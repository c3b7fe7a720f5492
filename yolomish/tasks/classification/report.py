"""A classifier's evaluation as files: metrics, results, confusion and calibration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yolomish.evaluation.plots import plot_calibration, plot_matrix
from yolomish.files import write_json
from yolomish.tasks.classification.metrics import calibration, class_metrics, confusion_counts


def write_evaluation(
    folder: Path, names: tuple[str, ...], rows: Sequence[dict], *, setting: dict[str, Any], plots: bool
) -> dict[str, Any]:
    """Score ``rows`` (see ``predict``) and write metrics.json and results.json to ``folder``; returns what metrics.json holds.

    ``setting`` (protocol, size) is stated beside the metrics. ``plots`` adds confusion_matrix.png and .json and calibration.png.
    """
    metrics, counts = class_metrics(rows, names), confusion_counts(rows, len(names))
    content = {**setting, "images": len(rows), **metrics.values, "per_class": metrics.per_class}
    if plots:
        title = f"Confusion of the likeliest class, {len(rows)} images"
        plot_matrix(counts, names, names, "taken for", title, folder / "confusion_matrix.png")
        plot_calibration(calibration(rows), metrics.values["ece"], folder / "calibration.png")
        write_json(folder / "confusion_matrix.json", {"names": list(names), "counts": counts.tolist()})
    write_json(folder / "metrics.json", content)
    write_json(folder / "results.json", list(rows))
    return content
