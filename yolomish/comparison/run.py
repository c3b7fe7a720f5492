"""Trains the arms at every seed through ``fit``, skips what is finished, proves the equal start, and reports."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from yolomish import __version__
from yolomish.activations import build_activation
from yolomish.comparison.arms import Arm, build_arms, config_difference
from yolomish.comparison.report import ArmNames, EpochPoint, Report, RunResult, build_report, write_report
from yolomish.config import TrainConfig, check_train, to_dict
from yolomish.data.datasets import open_data
from yolomish.errors import YolomishError
from yolomish.models import build_model
from yolomish.ops.device import choose_device
from yolomish.training.checkpoint import replace_file
from yolomish.training.fit import FitResult, fit

RESULT = "result.json"
IDENTITY = "identity.json"  # written before training, so that a run that was cut off can be told from another one


def initial_kernels(config: TrainConfig) -> str:
    """SHA-256 of the convolution and batch-norm tensors that ``fit`` starts from: torch seeded, then ``build_model``.

    Parameters inside activations (PReLU's slopes) are left out; they are constants that belong to the activation.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = build_model(config.model)
    digest = hashlib.sha256()
    for name, convolution, norm in model.darknet_order():
        digest.update(name.encode())
        for module in (convolution, norm):
            for tensor in module.state_dict().values() if module is not None else ():
                digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def environment(device: str = "auto") -> dict[str, str]:
    """What the runs ran on: versions, processor, device; all as text."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except (OSError, UnicodeDecodeError):
        pass  # not Linux: platform's word stays
    chosen = torch.device(choose_device(device))
    where = str(chosen)
    if chosen.type == "cuda":
        where = f"{torch.cuda.get_device_name(chosen)} (CUDA {torch.version.cuda})"
    return {
        "yolomish": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "CPU": f"{name} ({os.cpu_count()} cores, {torch.get_num_threads()} threads)",
        "device": where,
    }


def _identity(arm: Arm, config: TrainConfig, surroundings: dict[str, str]) -> dict[str, Any]:
    # What must be equal for a finished run to stand for this one: an activation file can change under an equal name.
    sources = {}
    for name in sorted({arm.config.model.activation, arm.config.model.neck_activation}):
        path = Path(name.rpartition(":")[0]) if ".py:" in name else None
        if path is not None and path.is_file():
            sources[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    ran_on = {key: surroundings[key] for key in ("yolomish", "torch", "device")}
    return {"config": to_dict(config), "activation_sources": sources, "ran_on": ran_on}


def _same_run(folder: Path, identity: dict[str, Any]) -> bool:
    try:
        saved = json.loads((folder / IDENTITY).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return bool(saved == json.loads(json.dumps(identity)))


def _train(config: TrainConfig, folder: Path, identity: dict[str, Any], log: Callable[[str], None]) -> FitResult:
    resume = (folder / "last.pt").exists()
    if resume and not _same_run(folder, identity):
        raise YolomishError(
            f"{folder} holds a run with other settings, activation code, torch or device: "
            "choose another folder for this comparison, or delete that one"
        )
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / IDENTITY, identity)
    return fit(config, folder, resume=resume, log=log)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=2) + "\n"

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    replace_file(path, write)


def _finished(folder: Path, identity: dict[str, Any]) -> RunResult | None:
    if not _same_run(folder, identity):
        return None
    try:
        values = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        epochs = tuple(EpochPoint(**point) for point in values.pop("epochs"))
        return RunResult(epochs=epochs, **values)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # of an older version: fit reads last.pt and evaluates again


def _epochs(history: Sequence[dict[str, Any]]) -> tuple[EpochPoint, ...]:
    points = []
    for row in history:
        loss = math.fsum(float(row[f"train/{part}_loss"]) for part in ("box", "objectness", "class"))
        measured = {k: row[f"metrics/{k}"] for k in ("AP", "AP50")}
        ap, ap50 = (None if v is None else float(v) for v in measured.values())
        points.append(EpochPoint(epoch=int(row["epoch"]), loss=loss if math.isfinite(loss) else None, ap=ap, ap50=ap50))
    return tuple(points)


def _result(arm: Arm, config: TrainConfig, folder: Path, out_dir: Path, kernels: str, fitted: FitResult) -> RunResult:
    metrics = fitted.metrics
    if metrics.ap < 0:
        raise YolomishError("the validation images hold no boxes, so AP is undefined: nothing can be compared")
    return RunResult(
        arm=arm.label,
        seed=config.seed,
        ap=float(metrics.ap),
        ap50=float(metrics.ap50),
        ap75=float(metrics.ap75),
        step_ms=float(fitted.step_ms),
        peak_memory_bytes=int(fitted.peak_memory_bytes),
        initial_kernels=kernels,
        folder=folder.name,
        best=os.path.relpath(fitted.best, out_dir),
        epochs=_epochs(fitted.history),
    )


def _differences(arms: Sequence[Arm]) -> dict[str, tuple[Any, ...]]:
    found = {key for arm in arms[1:] for key in config_difference(arms[0].config, arm.config)}
    table: dict[str, tuple[Any, ...]] = {}
    for key in sorted(found):
        values = []
        for arm in arms:
            value: Any = to_dict(arm.config)
            for part in key.split("."):
                value = value[part]
            values.append(value)
        table[key] = tuple(values)
    return table


def run_comparison(
    base: TrainConfig,
    acts: Sequence[str],
    seeds: int,
    out_dir: Path,
    *,
    scope: str = "backbone",
    command: str = "",
    log: Callable[[str], None] = print,
) -> Report:
    """Train every arm at seeds ``base.seed`` … ``base.seed + seeds - 1`` and write the report; gives its numbers.

    The number of classes is the data's. Each seed trains all arms before the next, odd rounds in reverse order, so that
    a machine that slows down does not favour one. A run in ``out_dir`` with the same configuration, activation file, torch
    and device is kept if finished and resumed if not. YolomishError for what can be refused before training, and for a
    folder that holds a run with other settings.
    """
    if seeds < 1:
        raise YolomishError(f"seeds must be at least 1, not {seeds}")
    for act in acts:
        build_activation(act)
    names = open_data(base.data, "train").names
    base = dataclasses.replace(base, model=dataclasses.replace(base.model, num_classes=len(names)))
    check_train(base)
    arms = build_arms(base, acts, scope=scope)
    kernels: dict[int, str] = {}
    for seed in range(base.seed, base.seed + seeds):
        hashes = {arm.label: initial_kernels(arm.seeded(seed)) for arm in arms}
        if len(set(hashes.values())) > 1:
            odd = next(label for label, value in hashes.items() if value != hashes[arms[0].label])
            raise YolomishError(
                f"NOT CONTROLLED: {odd!r} starts from other kernels than {arms[0].label!r} at seed {seed}: "
                "an activation must not draw random numbers when it is built"
            )
        kernels[seed] = hashes[arms[0].label]
    surroundings = environment(base.device)
    runs: dict[tuple[str, int], RunResult] = {}
    for turn, seed in enumerate(kernels):
        for arm in arms if turn % 2 == 0 else arms[::-1]:
            config = arm.seeded(seed)
            folder = out_dir / f"{arm.slug}-seed{seed}"
            identity = _identity(arm, config, surroundings)
            result = _finished(folder, identity)
            if result is None:
                log(f"[{len(runs) + 1}/{len(arms) * seeds}] training {arm.label}, seed {seed} -> {folder}")
                fitted = _train(config, folder, identity, log)
                result = _result(arm, config, folder, out_dir, kernels[seed], fitted)
                _write_json(folder / RESULT, asdict(result))
            else:
                log(f"[{len(runs) + 1}/{len(arms) * seeds}] {arm.label}, seed {seed}: already trained in {folder}")
            runs[arm.label, seed] = result
            log(f"  {arm.label}, seed {seed}: AP {result.ap:.4f}, AP50 {result.ap50:.4f}, {result.step_ms:.1f} ms a step")
    report = build_report(
        arms=tuple(
            ArmNames(
                label=arm.label,
                activation=arm.config.model.activation,
                neck_activation=arm.config.model.neck_activation,
            )
            for arm in arms
        ),
        runs=tuple(runs[arm.label, seed] for arm in arms for seed in kernels),
        scope=scope,
        config=to_dict(arms[0].config),
        config_difference=_differences(arms),
        environment=surroundings,
        command=command or f"yolomish compare --acts {','.join(acts)} --seeds {seeds} --scope {scope}",
    )
    write_report(report, out_dir)
    log(report.headline)
    return report
