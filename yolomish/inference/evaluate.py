"""Weights on a data set, by a whole protocol, through the network itself or an engine: what ``yolomish eval`` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from yolomish.config import DataConfig, to_dict
from yolomish.data.datasets import Split, open_data
from yolomish.data.formats.subset import part_text
from yolomish.evaluation.coco import check_backend
from yolomish.evaluation.provenance import warning
from yolomish.files import free_folder
from yolomish.inference.engines import build_engine
from yolomish.kernels import using_kernels
from yolomish.ops.device import choose_device
from yolomish.tasks.detection.pipeline import CPU, Pipeline
from yolomish.tasks.detection.predict import predict
from yolomish.tasks.detection.protocol import EvalProtocol
from yolomish.tasks.detection.report import describe_setting, write_evaluation, write_submission
from yolomish.tasks.detection.views import Runner
from yolomish.types import SizeHW
from yolomish.weights.load import LoadedNetwork


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation left in ``folder``: what metrics.json holds, or the ``submission`` of a split without labels;
    ``protocol`` is the line that states how it was made."""

    folder: Path
    protocol: str
    metrics: dict[str, Any]
    submission: Path | None = None
    detections: int = 0


def evaluate_weights(
    weights: str,
    loaded: LoadedNetwork,
    data: DataConfig,
    protocol: EvalProtocol,
    output: str | Path,
    *,
    split: Split = "val",
    size_hw: SizeHW | None = None,
    backend: str = "pycocotools",
    plots: bool = True,
    name: str = "",
    batch: int = 8,
    workers: int = 0,
    device: str = "auto",
    engine: str = "",
    half: bool = False,
    compile: bool = False,
    kernels: str = "auto",
    log: Callable[[str], Any] = print,
) -> Evaluation:
    """Evaluate what was ``loaded`` from ``weights`` on a split of ``data`` by ``protocol``.

    The files go into a new folder ``output``: metrics.json and results.json by a ``backend`` of ``evaluation.coco``, curves
    with ``plots``; a split without labels makes a submission called ``name``. ``size_hw`` is the network's size in px
    (None: its own). ``batch`` images go through at once, ``workers`` processes decode. ``engine`` (empty: the network as it
    was trained) runs on ``device``, in ``half`` precision or by torch's ``compile``, Mish by ``kernels``. ``log`` is told
    the protocol first. YolomishError for what does not fit together.
    """
    check_backend(backend)
    chosen = choose_device(device)
    for note in loaded.notes:
        log(note)
    source = open_data(data, split)
    if source.left_out:
        log(source.left_out)
    if loaded.names != source.names:
        log(f"classes: {weights} and {source.source} are not named or numbered alike; they are compared by name")
    named = source.with_classes(loaded.names, weights)
    network = loaded.network
    size_hw = size_hw or network.input.size_hw
    network.input.check_size(size_hw)
    protocol = protocol.of(network.heads)
    stated = protocol.describe(len(source), f"{split} ({source.source.name}{part_text(data)})", size_hw)
    log(stated)
    if text := warning(weights, source):
        log(text)
    if network.input.resize != protocol.resize:
        log(f"note: these weights were trained with {network.input.resize}, the protocol resizes by {protocol.resize}")
    runner: Runner = network.to(chosen)
    if engine or half or compile:
        made = build_engine(engine or "auto", network, device=chosen, half=half, compile=compile)
        log(made.how)
        runner, chosen = made, CPU
    pipeline = Pipeline(runner=runner, protocol=protocol, size_hw=size_hw, device=chosen)
    with using_kernels(kernels):
        results = predict(pipeline, named, batch=batch, workers=workers, progress=True)
    results = results[np.isin(results.category_ids, source.category_ids)]
    folder = free_folder(output)
    if not source.annotated:
        archive = write_submission(folder, source, results, name or Path(weights).stem)
        return Evaluation(folder=folder, protocol=stated, metrics={}, submission=archive, detections=len(results))
    setting = describe_setting(protocol, size_hw) | {"data": to_dict(data)}
    content = write_evaluation(folder, source, results, setting=setting, backend=backend, plots=plots)
    return Evaluation(folder=folder, protocol=stated, metrics=content, detections=len(results))
