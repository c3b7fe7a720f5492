"""The only training loop. Everything random follows from the configuration's seed, so the same run gives the same losses."""

from __future__ import annotations

import csv
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from tqdm import tqdm

from yolomish.config import TrainConfig, check_train, from_dict, save_yaml, to_dict
from yolomish.darknet.weights import read_weights
from yolomish.data.datasets import DetectionData, open_data
from yolomish.data.loader import make_loader
from yolomish.errors import YolomishError
from yolomish.evaluation.coco import evaluate
from yolomish.evaluation.predict import predict
from yolomish.models import YOLOv4, build_model
from yolomish.ops.device import choose_device
from yolomish.training.checkpoint import read_checkpoint, replace_file, save_checkpoint
from yolomish.training.loss import detection_loss
from yolomish.training.optim import EMA, build_optimizer, burn_in_steps, learning_rate
from yolomish.training.plots import save_batch, save_curves
from yolomish.types import Batch, CocoMetrics, LossParts, ResizeMode

Log = Callable[[str], Any]
COLUMNS = (
    "epoch",
    "train/box_loss",
    "train/objectness_loss",
    "train/class_loss",
    "lr",
    "metrics/AP",
    "metrics/AP50",
    "metrics/AP75",
    "step_ms",
    "seconds",
)
MAY_CHANGE = ("epochs", "workers", "device")  # between a run and its resumption
AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a run gave: its checkpoints, the last epoch's metrics, the median step in ms (waiting for data left out),
    the peak memory (CUDA: allocated by torch; CPU: the process's resident set) and the rows of results.csv."""

    best: Path
    last: Path
    metrics: CocoMetrics
    step_ms: float
    peak_memory_bytes: int
    history: list[dict[str, Any]]


@dataclass(kw_only=True)
class _Run:
    config: TrainConfig
    device: torch.device
    train: DetectionData
    val: DetectionData
    model: YOLOv4
    optimizer: torch.optim.SGD
    scaler: torch.amp.GradScaler
    ema: EMA | None

    def step(self, batch: Batch, lr: float) -> LossParts:
        """One optimiser step; gives the batch's losses."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        parts = self.losses(batch)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(parts.total).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema:
            self.ema.update(self.model)
        return parts

    def losses(self, batch: Batch) -> LossParts:
        layout = torch.channels_last if self.config.channels_last else torch.contiguous_format
        images = batch.images.to(self.device, non_blocking=True).float().div_(255).contiguous(memory_format=layout)
        mixed = self.config.amp != "off" and self.device.type == "cuda"
        with torch.autocast(self.device.type, dtype=AMP_TYPES.get(self.config.amp, torch.bfloat16), enabled=mixed):
            maps = self.model(images)
        return detection_loss(maps, self.model.heads, batch.targets.to(self.device), self.config)

    def evaluate(self) -> CocoMetrics:
        """COCO metrics on the validation split with the averaged weights, or the weights themselves without EMA."""
        model = cast(YOLOv4, self.ema.model) if self.ema else self.model
        model.eval()
        results = predict(
            model,
            self.val,
            image_size=self.config.image_size,
            resize=cast(ResizeMode, self.config.resize),
            conf=0.001,
            iou=0.6,
            nms="greedy-diou",
            batch=self.config.batch,
            device=self.device,
            max_det=300,
            progress=False,
        )
        return evaluate(self.val.coco(), results, self.val.names, self.val.category_ids)


def fit(
    config: TrainConfig,
    out_dir: Path,
    *,
    initial_weights: str = "",
    resume: bool = False,
    log: Log = print,
) -> FitResult:
    """Train ``config`` and leave best.pt, last.pt, results.csv, curves.png and config.yaml in ``out_dir``.

    The number of classes is the data's. ``initial_weights`` is a ``.pt`` checkpoint or a Darknet ``.weights`` file;
    tensors of other shapes stay as initialised. ``resume`` goes on from ``out_dir/last.pt`` and gives, on a CPU, the
    same bits as a run that was not interrupted. A loss that is not finite is a YolomishError and leaves last.pt as
    it was. After an interrupt the log says how to go on and KeyboardInterrupt is raised again.
    """
    out_dir = Path(out_dir)
    last, best = out_dir / "last.pt", out_dir / "best.pt"
    if last.exists() and not resume:
        raise YolomishError(f"{out_dir} already holds a run: resume it or choose another folder")
    saved = read_checkpoint(last) if resume else None
    run = _prepare(config, "" if saved else initial_weights, log)
    config = run.config
    history: list[dict[str, Any]] = []
    first_epoch, step, best_ap = 0, 0, -math.inf
    if saved:
        _check_same(config, saved, last)
        _restore(run, saved)
        history, first_epoch, step = list(saved["history"]), int(saved["epoch"]), int(saved["step"])
        best_ap = float(saved["best_ap"])
        log(f"resuming {out_dir} after epoch {first_epoch} of {config.epochs}")
    out_dir.mkdir(parents=True, exist_ok=True)
    save_yaml(config, out_dir / "config.yaml")
    steps_per_epoch = _steps_per_epoch(run)
    total_steps = config.epochs * steps_per_epoch
    shortened = burn_in_steps(total_steps, config)
    if shortened < config.burn_in:
        log(f"burn-in shortened from {config.burn_in} to {shortened} steps, a fifth of the run's {total_steps}")
    board = _tensorboard(out_dir, log)
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(run.device)
    metrics: CocoMetrics | None = None
    step_times: list[float] = []
    epoch = first_epoch
    try:
        for epoch in range(first_epoch, config.epochs):
            began = time.perf_counter()
            loader = make_loader(run.train, config, epoch=epoch, training=True)
            run.model.train()
            sums, lr, epoch_times = [0.0, 0.0, 0.0], 0.0, []
            bar = tqdm(loader, desc=f"epoch {epoch + 1}/{config.epochs}", file=sys.stderr, leave=False, disable=None)
            for number, batch in enumerate(bar):
                if epoch == 0 and number < 3:
                    save_batch(batch, run.train.names, out_dir / f"train_batch{number}.jpg")
                lr = learning_rate(step + 1, total_steps, config)
                started = time.perf_counter()
                parts = run.step(batch, lr)
                values = torch.stack((parts.box, parts.objectness, parts.classes)).detach().tolist()
                epoch_times.append(time.perf_counter() - started)
                step += 1
                if not all(math.isfinite(v) for v in values):
                    raise YolomishError(
                        f"the loss is not finite in epoch {epoch + 1}, step {step}: box {values[0]:.4g}, objectness "
                        f"{values[1]:.4g}, classes {values[2]:.4g} at lr {lr:.3g}; try a lower --lr or --amp off"
                    )
                sums = [a + b for a, b in zip(sums, values, strict=True)]
                bar.set_postfix_str(
                    f"box {values[0]:.3f} obj {values[1]:.3f} cls {values[2]:.3f} lr {lr:.2e} "
                    f"{len(batch.images) / epoch_times[-1]:.1f} img/s"
                )
            step_times += epoch_times
            metrics = None
            if (epoch + 1) % config.eval_every == 0 or epoch + 1 == config.epochs:
                metrics = run.evaluate()
            seconds = time.perf_counter() - began
            row = _row(epoch + 1, [s / len(epoch_times) for s in sums], lr, metrics, epoch_times, seconds)
            history.append(row)
            improved = metrics is not None and metrics.ap > best_ap
            if metrics is not None and improved:
                best_ap = metrics.ap
            state: dict[str, Any] = {
                "config": config,
                "model": run.model,
                "names": run.train.names,
                "ema": run.ema,
                "optimizer": run.optimizer,
                "scaler": run.scaler,
                "epoch": epoch + 1,
                "step": step,
                "best_ap": best_ap,
                "history": history,
            }
            if improved:
                save_checkpoint(best, **state)
            save_checkpoint(last, **state)
            _save_results(history, out_dir / "results.csv")
            if metrics is not None:
                save_curves(history, out_dir / "curves.png")
            if board:
                for key in COLUMNS[1:]:
                    if row[key] is not None:
                        board.add_scalar(key, row[key], epoch + 1)
            log(_summary(row, config.epochs))
    except KeyboardInterrupt:
        if last.exists():
            log(f"interrupted in epoch {epoch + 1}; go on with: yolomish train --resume {out_dir}")
        else:
            log(f"interrupted in epoch {epoch + 1}, before the first checkpoint: nothing to resume, start again")
        raise
    finally:
        if board:
            board.close()
    if metrics is None:  # resumed when every epoch was already done
        log(f"all {config.epochs} epochs are already done: evaluating only")
        metrics = run.evaluate()
    median = statistics.median(step_times) * 1000 if step_times else float(history[-1]["step_ms"])
    return FitResult(
        best=best,
        last=last,
        metrics=metrics,
        step_ms=median,
        peak_memory_bytes=_peak_memory(run.device),
        history=history,
    )


def try_out(config: TrainConfig, *, initial_weights: str = "", log: Log = print) -> None:
    """Check configuration and data and take one batch forward and backward; writes nothing."""
    run = _prepare(config, initial_weights, log)
    steps = _steps_per_epoch(run)
    batch = next(iter(make_loader(run.train, replace(run.config, workers=0), epoch=0, training=True)))
    run.model.train()
    parts = run.losses(batch)
    parts.total.backward()
    values = [p.detach().item() for p in (parts.box, parts.objectness, parts.classes)]
    if not all(math.isfinite(v) for v in values):
        raise YolomishError(f"the first batch's loss is not finite: box, objectness, classes = {values}")
    log(
        f"one batch of {len(batch.images)} with {len(batch.targets)} boxes: box {values[0]:.4f}, objectness "
        f"{values[1]:.4f}, classes {values[2]:.4f}; an epoch has {steps} steps"
    )


def load_initial_weights(model: YOLOv4, config: TrainConfig, weights: str, log: Log) -> None:
    """Start ``model`` from a ``.pt`` or ``.weights`` file and say what fitted; YolomishError where little does."""
    if Path(weights).suffix == ".weights":
        if not Path(weights).is_file():
            raise YolomishError(f"no such weights file: {weights}")
        source = _read_darknet(model, config, weights)
    else:
        content = read_checkpoint(weights)
        source = content["ema"] or content["model"]
        theirs = content["config"]["model"]
        for key in ("activation", "neck_activation"):
            if theirs[key] != getattr(config.model, key):
                log(f"{weights} was trained with {key} {theirs[key]}, this model has {getattr(config.model, key)}")
    own = model.state_dict()
    fitting = {k: v for k, v in source.items() if k in own and own[k].shape == v.shape}
    if 2 * len(fitting) < len(own):
        raise YolomishError(f"{weights} fits {len(fitting)} of this model's {len(own)} tensors: is it another model?")
    model.load_state_dict(fitting, strict=False)
    left = [k for k in own if k not in fitting]
    rest = f"; left as initialised: {', '.join(left[:6])}{', ...' if len(left) > 6 else ''}" if left else ""
    log(f"{weights}: {len(fitting)} of {len(own)} tensors loaded{rest}")


def _read_darknet(model: YOLOv4, config: TrainConfig, weights: str) -> dict[str, Any]:
    """The state of a ``.weights`` file with this model's number of classes, or COCO's."""
    try:
        read_weights(weights, model)
        return model.state_dict()
    except YolomishError:
        if config.model.num_classes == 80:
            raise
        other = build_model(replace(config.model, num_classes=80))
        read_weights(weights, other)
        return other.state_dict()


def _prepare(config: TrainConfig, initial_weights: str, log: Log) -> _Run:
    check_train(config)
    train, val = open_data(config.data, "train"), open_data(config.data, "val")
    if tuple(train.names) != tuple(val.names):
        raise YolomishError(f"train and val have different classes: {', '.join(train.names)} and {', '.join(val.names)}")
    config = replace(config, model=replace(config.model, num_classes=len(train.names)))
    device = torch.device(choose_device(config.device))
    if config.amp != "off" and device.type != "cuda":
        log(f"amp {config.amp} is for CUDA: training on {device.type} in float32")
    torch.manual_seed(config.seed)
    model = build_model(config.model)
    if initial_weights:
        load_initial_weights(model, config, initial_weights, log)
    model = model.to(device)
    if config.channels_last:
        model = cast(YOLOv4, model.to(memory_format=torch.channels_last))
    count = sum(p.numel() for p in model.parameters())
    log(
        f"{config.model.name} ({config.model.activation} backbone, {config.model.neck_activation} neck), "
        f"{count / 1e6:.2f} M parameters on {device}; {len(train)} training and {len(val)} validation images, "
        f"{len(train.names)} classes"
    )
    return _Run(
        config=config,
        device=device,
        train=train,
        val=val,
        model=model,
        optimizer=build_optimizer(model, config),
        scaler=torch.amp.GradScaler(device.type, enabled=config.amp == "fp16" and device.type == "cuda"),
        ema=EMA(model, config.ema_decay) if config.ema else None,
    )


def _steps_per_epoch(run: _Run) -> int:
    steps = len(make_loader(run.train, run.config, epoch=0, training=True)) if len(run.train) else 0
    if not steps:
        raise YolomishError(f"no training batch: {len(run.train)} images at batch {run.config.batch}")
    return steps


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _check_same(config: TrainConfig, saved: dict[str, Any], path: Path) -> None:
    theirs = _flatten(to_dict(from_dict(TrainConfig, saved["config"], f"configuration in {path}")))
    ours = _flatten(to_dict(config))
    changed = [f"{k} ({theirs[k]} -> {ours[k]})" for k in ours if ours[k] != theirs[k] and k not in MAY_CHANGE]
    if changed:
        raise YolomishError(f"cannot resume {path} with other settings: {', '.join(changed)}")


def _restore(run: _Run, saved: dict[str, Any]) -> None:
    run.model.load_state_dict(saved["model"])
    run.optimizer.load_state_dict(saved["optimizer"])
    run.scaler.load_state_dict(saved["scaler"])
    if run.ema:
        cast(nn.Module, run.ema.model).load_state_dict(saved["ema"])
        run.ema.updates = int(saved["ema_updates"])
    torch.set_rng_state(saved["rng"])


def _row(
    epoch: int, losses: list[float], lr: float, metrics: CocoMetrics | None, times: list[float], seconds: float
) -> dict[str, Any]:
    measured = (metrics.ap, metrics.ap50, metrics.ap75) if metrics else (None, None, None)
    values = (epoch, *losses, lr, *measured, round(statistics.median(times) * 1000, 3), round(seconds, 3))
    return dict(zip(COLUMNS, values, strict=True))


def _save_results(history: list[dict[str, Any]], path: Path) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(history)

    replace_file(path, write)


def _summary(row: dict[str, Any], epochs: int) -> str:
    text = (
        f"epoch {row['epoch']}/{epochs}: box {row['train/box_loss']:.4f} objectness {row['train/objectness_loss']:.4f} "
        f"classes {row['train/class_loss']:.4f} lr {row['lr']:.2e}"
    )
    if row["metrics/AP"] is not None:
        text += f" AP {row['metrics/AP']:.4f} AP50 {row['metrics/AP50']:.4f} AP75 {row['metrics/AP75']:.4f}"
    return f"{text} {row['step_ms']:.0f} ms/step {row['seconds']:.1f} s"


def _tensorboard(out_dir: Path, log: Log) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log("no TensorBoard logs: it is not installed (pip install 'yolomish[logging]')")
        return None
    return SummaryWriter(str(out_dir))


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
