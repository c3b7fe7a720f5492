"""A classifier on a data set, by a whole protocol: what ``yolomish eval`` does with weights that find no boxes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from yolomish.config import DataConfig
from yolomish.data.classification import open_classes
from yolomish.data.formats.record import Split
from yolomish.files import free_folder
from yolomish.inference.evaluate import Evaluation
from yolomish.kernels import using_kernels
from yolomish.ops.device import choose_device
from yolomish.tasks.classification.predict import predict
from yolomish.tasks.classification.protocol import ClassProtocol, find_protocol, training_protocol
from yolomish.tasks.classification.report import write_evaluation
from yolomish.types import SizeHW
from yolomish.weights.load import LoadedNetwork


def protocol_for(loaded: LoadedNetwork, name: str) -> ClassProtocol:
    """The protocol of that name, or where it is empty that of the training, else ``darknet``."""
    if not name and loaded.training is not None:
        return training_protocol(loaded.training)
    return find_protocol(name or "darknet")


def evaluate_classifier(
    weights: str,
    loaded: LoadedNetwork,
    data: DataConfig,
    protocol: ClassProtocol,
    output: str | Path,
    *,
    split: Split = "val",
    size_hw: SizeHW | None = None,
    plots: bool = True,
    batch: int = 8,
    workers: int = 0,
    device: str = "auto",
    kernels: str = "auto",
    log: Callable[[str], Any] = print,
) -> Evaluation:
    """Evaluate what was ``loaded`` from ``weights`` on a split of ``data`` by ``protocol``; the files go into a new folder.

    Arguments are those of ``evaluate_weights``. ``log`` is told the protocol first. YolomishError where the data has another
    number of classes.
    """
    for note in loaded.notes:
        log(note)
    source, chosen = open_classes(data, split), choose_device(device)
    source.with_classes(loaded.names, weights)
    network = loaded.network.to(chosen)
    size_hw = size_hw or network.input.size_hw
    stated = protocol.describe(len(source), f"{split} ({source.source.name})", size_hw)
    log(stated)
    with using_kernels(kernels):
        rows = predict(network, source, protocol, size_hw, device=chosen, batch=batch, workers=workers)
    folder = free_folder(output)
    setting = {"protocol": dataclasses.asdict(protocol), "image_size_hw": list(size_hw)}
    content = write_evaluation(folder, source.names, rows, setting=setting, plots=plots)
    return Evaluation(folder=folder, protocol=stated, metrics=content, detections=len(rows))
