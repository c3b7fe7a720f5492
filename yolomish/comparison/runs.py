"""One training of a comparison, from its plan to the report, and what a run's folder holds, whoever trained it."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import nn

from yolomish.config import TrainConfig, check_train, from_dict, load_yaml, parse_json
from yolomish.errors import YolomishError, first_line, shown
from yolomish.files import read_text
from yolomish.networks import build_network

RESULTS, TIMES, CONFIG = "results.csv", "timing.csv", "config.yaml"
IDENTITY = "identity.json"  # written before training: what must be equal for a run in a folder to stand for another


class State(str, Enum):
    """How far a run is."""

    PLANNED = "planned"
    BEGUN = "begun"
    FINISHED = "finished"
    DETECTIONS = "detections only"


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a run started from: the weights file (empty: random weights; None: not recorded), its SHA-256, and the hash of
    the network's kernels before the first step (empty: unknown; see ``initial_kernels``)."""

    weights: str | None = None
    sha256: str = ""
    kernels: str = ""


@dataclass(frozen=True, kw_only=True)
class EpochPoint:
    """One epoch of a run: its weighted training loss (None where not finite), and AP and AP50 (0..1), of a classifier
    top-1 and top-5, where measured."""

    epoch: int
    loss: float | None
    ap: float | None
    ap50: float | None


@dataclass(frozen=True, kw_only=True)
class Run:
    """One arm at one seed. ``seed`` is that of the comparison, at which arms are paired; the configuration has the run's own.

    ``path`` is the run's folder, or the COCO result file where ``state`` is DETECTIONS: then there is no configuration,
    curve or cost. ``home`` is the folder in which the comparison keeps the run's detections. ``config`` is what was asked
    for until the run is read from its folder, then what ran. ``ran_on`` is the recorded software and device.
    ``seconds`` is what all its epochs took. ``metrics`` (AP, AP50, AP75, APs, APm, APl, 0..1; None without such objects) and
    ``per_class`` are the last checkpoint's, empty until measured.
    """

    arm: str
    seed: int
    path: Path
    home: Path
    state: State
    config: TrainConfig | None = None
    start: Start = Start()
    ran_on: Mapping[str, str] = field(default_factory=dict)
    epochs: tuple[EpochPoint, ...] = ()
    step_ms: float | None = None
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    per_class: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def last(self) -> Path:
        """The last checkpoint."""
        return self.path / "last.pt"

    @property
    def best(self) -> Path:
        """The checkpoint of the best epoch."""
        return self.path / "best.pt"

    @property
    def best_point(self) -> EpochPoint | None:
        """The epoch of the highest AP on the validation images, chosen on the same images and so too high."""
        measured = [p for p in self.epochs if p.ap is not None]
        return max(measured, key=lambda p: p.ap or 0.0, default=None)

    @property
    def best_ap(self) -> float | None:
        """AP at ``best_point``."""
        best = self.best_point
        return best.ap if best else None

    @property
    def task(self) -> str:
        """What it was trained for; bare detections are detection's."""
        return self.config.task if self.config else "detect"

    @property
    def name(self) -> str:
        """What tells it from the other runs of its arm: its seed, or its file's name."""
        return f"seed {self.config.seed}" if self.config else self.path.name

    def trained(self) -> TrainConfig:
        """The configuration of a run that has one; ValueError for bare detections."""
        if self.config is None:
            raise ValueError(f"{self.path} holds detections, no training")
        return self.config

    def read(self) -> Run:
        """The same run with what its folder holds now: state, configuration, curve and costs."""
        if not is_run(self.path):
            return self
        config = from_dict(TrainConfig, load_yaml(self.path / CONFIG), str(self.path / CONFIG))
        check_train(config)
        points = _points(_rows(self.path / RESULTS), self.path / RESULTS)
        times = _rows(self.path / TIMES)
        steps = [v for row in times if (v := _number(row, "step_ms")) is not None]
        seconds = [v for row in times if (v := _number(row, "seconds")) is not None]
        peaks = [v for row in times if (v := _number(row, "peak_memory_bytes")) is not None]
        done = points[-1].epoch if points else 0
        return replace(
            self,
            state=State.FINISHED if done >= config.epochs else State.BEGUN,
            config=config,
            ran_on=_texts(read_identity(self.path).get("ran_on")),
            epochs=points,
            step_ms=statistics.median(steps) if steps else None,
            seconds=math.fsum(seconds) if seconds else None,
            peak_memory_bytes=int(max(peaks)) if peaks else None,
        )


def _texts(value: Any) -> dict[str, str]:
    return {str(k): str(v)[:200] for k, v in value.items()} if isinstance(value, dict) else {}


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run: it holds config.yaml and last.pt."""
    return (folder / CONFIG).is_file() and (folder / "last.pt").is_file()


def read_run(folder: Path) -> Run:
    """A finished run, its arm not named yet; YolomishError where the folder holds none, or one with epochs left."""
    if not is_run(folder):
        raise YolomishError(f"{folder} is no run folder: it needs config.yaml and last.pt, as yolomish train leaves them")
    run = Run(arm="", seed=0, path=folder, home=folder, state=State.PLANNED).read()
    config = run.trained()
    if run.state is not State.FINISHED:
        done = run.epochs[-1].epoch if run.epochs else 0
        raise YolomishError(
            f"{folder} has {done} of {config.epochs} epochs: finish it with yolomish train --resume {folder}, or leave it out"
        )
    return replace(run, seed=config.seed, start=recorded_start(folder))


def read_identity(folder: Path) -> dict[str, Any]:
    """What ``identity.json`` holds, empty where there is none."""
    try:
        content = parse_json(read_text(folder / IDENTITY), IDENTITY)
    except YolomishError:
        return {}
    return content if isinstance(content, dict) else {}


def recorded_start(folder: Path) -> Start:
    """What the run in a folder started from, as its config.yaml or identity.json says; ``weights`` None where neither does."""
    written = load_yaml(folder / CONFIG)
    if "initial_weights" in written:
        return Start(weights=str(written["initial_weights"]), sha256=str(written.get("initial_weights_sha256", "")))
    if identity := read_identity(folder):
        return Start(weights=str(identity.get("weights", "")), sha256=str(identity.get("weights_sha256", "")))
    return Start()


def initial_kernels(config: TrainConfig, weights_sha256: str) -> str:
    """SHA-256 of what training starts from: torch seeded, then the network built; then the weights file's digest, if any.

    Parameters inside activations (PReLU's slopes) are left out; they are constants that belong to the activation.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = build_network(config.model)
    found = hashlib.sha256()
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.conv._ConvNd | nn.modules.batchnorm._NormBase | nn.Linear):
            found.update(name.encode())
            for tensor in module.state_dict().values():
                found.update(tensor.contiguous().numpy().tobytes())
    found.update(weights_sha256.encode())
    return found.hexdigest()


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    try:
        return list(csv.DictReader(io.StringIO(read_text(path), newline="")))
    except csv.Error as error:
        raise YolomishError(f"{path} cannot be read as CSV: {first_line(error)}") from None


def _number(row: dict[str, str], key: str) -> float | None:
    text = row.get(key) or ""
    try:
        value = float(text)
    except (ValueError, TypeError):  # TypeError: a list, of a row that is too long
        return None
    return value if math.isfinite(value) else None


def _points(rows: Iterable[dict[str, str]], path: Path) -> tuple[EpochPoint, ...]:
    points = []
    for row in rows:
        parts = [_number(row, key) for key in row if key and key.startswith("train/") and key.endswith("_loss")]
        loss = math.fsum(p for p in parts if p is not None) if parts and None not in parts else None
        ap, ap50, *_ = (*(_number(row, key) for key in row if str(key).startswith("metrics/")), None, None)
        epoch = _number(row, "epoch")
        if epoch is None or not 1 <= epoch < 1e9 or epoch % 1:
            raise YolomishError(f"{path}: the column epoch must hold whole numbers from 1, not {shown(row.get('epoch'))}")
        points.append(EpochPoint(epoch=int(epoch), loss=loss, ap=ap, ap50=ap50))
    return tuple(points)
