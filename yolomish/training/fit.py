"""The only training loop. Everything random follows from the configuration's seed, so the same run gives the same losses."""

from __future__ import annotations

import math
import signal
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from yolomish.config import TrainConfig, save_yaml
from yolomish.data.loader import train_loader
from yolomish.errors import YolomishError
from yolomish.files import clear_partial_files
from yolomish.ops.device import choose_device
from yolomish.ops.distributed import process_group, rank, sum_over_ranks, world_size
from yolomish.training.plots import save_batch, save_curves
from yolomish.training.prepare import Run, check_same, prepare, restore
from yolomish.training.record import RESULTS, TIMES, Log, epoch_line, peak_memory, result_row, save_rows, tensorboard
from yolomish.training.statistics import data_lines
from yolomish.types import CocoMetrics
from yolomish.weights.checkpoint import read_checkpoint, save_checkpoint

CUDA_WINDOW = 10  # steps between looks at the losses, each of which waits for the GPU
SAVE_SECONDS = 600.0


class Terminated(BaseException):
    """SIGTERM arrived; the run was saved."""


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
class _State:
    """Where a run stands: finished epochs, steps done in the next one and the sums of their losses."""

    epoch: int = 0
    position: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    best_ap: float = -math.inf
    history: list[dict[str, Any]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)

    def save(self, run: Run, path: Path) -> None:
        save_checkpoint(
            path,
            config=run.config,
            model=run.model,
            names=run.train.names,
            average=run.ema.model if run.ema else None,
            updates=run.ema.updates if run.ema else 0,
            optimizer=run.optimizer,
            scaler=run.scaler,
            progress=vars(self),
        )


def fit(config: TrainConfig, out_dir: Path, *, initial_weights: str = "", resume: bool = False, log: Log = print) -> FitResult:
    """Train ``config`` and leave best.pt, last.pt, results.csv, timing.csv, curves.png and config.yaml in ``out_dir``.

    The number of classes is the data's. ``initial_weights`` is a ``.pt`` checkpoint or a Darknet ``.weights`` file;
    tensors of other shapes stay as initialised. ``resume`` goes on from ``out_dir/last.pt`` and gives, on a CPU, the
    same bits as a run that was not interrupted. A loss that is not finite is a YolomishError and leaves last.pt as
    it was. At SIGTERM or an interrupt the step is finished and saved, the log says how to go on, and ``Terminated`` or
    KeyboardInterrupt is raised. Under torchrun every process calls this and process 0 alone writes.
    """
    out_dir = Path(out_dir)
    last = out_dir / "last.pt"
    with process_group(str(choose_device(config.device))) as device:
        if rank():
            log = _silent
        if last.exists() and not resume:
            raise YolomishError(f"{out_dir} already holds a run: resume it or choose another folder")
        saved = read_checkpoint(last) if resume else None
        run = prepare(replace(config, device=device) if world_size() > 1 else config, "" if saved else initial_weights, log)
        state = _State()
        if saved:
            check_same(run.config, saved, last)
            restore(run, saved)
            state = _State(**saved["progress"])
            log(f"resuming {out_dir} after epoch {state.epoch} of {run.config.epochs}, step {state.position} of {run.steps}")
        for line in data_lines(run.train, run.config, run.model.heads):
            log(line)
        if rank() == 0:
            _open_folder(out_dir, run.config)
            if saved:
                save_rows(state.history, RESULTS, out_dir / "results.csv")
        return _train(run, state, out_dir, log)


def _silent(_: str) -> None:
    pass


def _open_folder(out_dir: Path, config: TrainConfig) -> None:
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        clear_partial_files(out_dir)
        save_yaml(config, out_dir / "config.yaml")
    except OSError as error:
        raise YolomishError(f"{out_dir} cannot be written: {error.strerror}; choose another folder with --output") from None


def _train(run: Run, state: _State, out_dir: Path, log: Log) -> FitResult:
    config, last, best = run.config, out_dir / "last.pt", out_dir / "best.pt"
    board = tensorboard(out_dir, log) if rank() == 0 else None
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(run.device)
    metrics: CocoMetrics | None = None
    try:
        with _stop_signals() as stop:
            for epoch in range(state.epoch, config.epochs):
                began = time.perf_counter()
                lr, times = _epoch(run, state, epoch, out_dir, stop)
                metrics = None
                if (epoch + 1) % config.eval_every == 0 or epoch + 1 == config.epochs:
                    metrics = run.evaluate()
                row = result_row(epoch + 1, [s / run.steps for s in state.sums], lr, metrics)
                times |= {"peak_memory_bytes": peak_memory(run.device), "seconds": round(time.perf_counter() - began, 3)}
                state.history.append(row)
                state.timings.append(times)
                state.epoch, state.position, state.sums = epoch + 1, 0, [0.0, 0.0, 0.0]
                if rank() == 0:
                    if metrics is not None and metrics.ap > state.best_ap:
                        state.best_ap = metrics.ap
                        state.save(run, best)
                    state.save(run, last)
                    save_rows(state.history, RESULTS, out_dir / "results.csv")
                    save_rows(state.timings, TIMES, out_dir / "timing.csv")
                    if metrics is not None:
                        save_curves(state.history, out_dir / "curves.png")
                    if board:
                        for key, value in (row | times).items():
                            if value is not None and key != "epoch":
                                board.add_scalar(key, value, epoch + 1)
                log(epoch_line(row, times, config.epochs))
    except (KeyboardInterrupt, Terminated):
        if last.exists():
            log(f"stopped in epoch {state.epoch + 1}; go on with: yolomish train --resume {out_dir}")
        else:
            log(f"stopped in epoch {state.epoch + 1}, before the first checkpoint: nothing to resume, start again")
        raise
    finally:
        if board:
            board.close()
    if metrics is None:  # resumed when every epoch was already done
        log(f"all {config.epochs} epochs are already done: evaluating only")
        metrics = run.evaluate()
    return FitResult(
        best=best,
        last=last,
        metrics=metrics,
        step_ms=statistics.median(t["step_ms"] for t in state.timings),
        peak_memory_bytes=max(t["peak_memory_bytes"] for t in state.timings),
        history=state.history,
    )


def _epoch(run: Run, state: _State, epoch: int, out_dir: Path, stop: list[BaseException]) -> tuple[float, dict[str, Any]]:
    """Train the rest of an epoch from ``state.position``, adding to its sums; gives the last rate and the timings."""
    config = run.config
    loader = train_loader(run.train, config, epoch=epoch, first_step=state.position, rank=rank(), world_size=world_size())
    images = min(config.batch, len(run.train))
    minis = math.ceil(images / (config.mini_batch or config.batch))
    window = CUDA_WINDOW if run.device.type == "cuda" else 1
    pending: list[Tensor] = []
    waited, window_wait, step_times, lr = 0.0, 0.0, [], 0.0
    run.train_mode()
    source = iter(loader)
    title = f"epoch {epoch + 1}/{config.epochs}"
    hidden = None if rank() == 0 else True  # None: where stderr is no terminal
    bar = tqdm(total=run.steps, initial=state.position, desc=title, file=sys.stderr, leave=False, disable=hidden)
    window_began = saved_at = time.perf_counter()
    began = window_began
    for position in range(state.position, run.steps):
        asked = time.perf_counter()
        batches = list(islice(source, minis))
        window_wait += time.perf_counter() - asked
        if epoch == 0 and position < 3 and rank() == 0:
            save_batch(batches[0], run.train.names, out_dir / f"train_batch{position}.jpg")
        number = epoch * run.steps + position + 1
        losses, lr = run.step(batches, number)
        pending.append(losses)
        bar.update()
        if len(pending) < window and position + 1 < run.steps:
            continue
        values = torch.stack(pending).tolist()  # waits for the GPU
        for i, row in enumerate(values):
            if not all(math.isfinite(v) for v in row):
                raise YolomishError(
                    f"the loss is not finite in epoch {epoch + 1}, step {number - len(values) + 1 + i}: box {row[0]:.4g}, "
                    f"objectness {row[1]:.4g}, classes {row[2]:.4g} at lr {lr:.3g}; try a lower --lr or --amp off"
                )
            state.sums = [a + b for a, b in zip(state.sums, row, strict=True)]
        state.position = position + 1
        now = time.perf_counter()
        step_times.append((now - window_began - window_wait) / len(pending))
        waited += window_wait
        window_began, window_wait, pending = now, 0.0, []
        bar.set_postfix_str(
            f"box {row[0]:.3f} obj {row[1]:.3f} cls {row[2]:.3f} lr {lr:.2e} "
            f"{images / step_times[-1]:.1f} img/s wait {waited / (now - began):.0%}"
        )
        stopping = _agreed(bool(stop), run.device)
        if (stopping or now - saved_at > SAVE_SECONDS) and position + 1 < run.steps:
            if rank() == 0:
                state.save(run, out_dir / "last.pt")
            saved_at = time.perf_counter()
            if stopping:
                raise stop[0] if stop else Terminated
    bar.close()
    step_ms = statistics.median(step_times) * 1000
    seconds = time.perf_counter() - began
    return lr, {
        "epoch": epoch + 1,
        "step_ms": round(step_ms, 3),
        "images_per_s": round(images * 1000 / step_ms, 3),
        "data_wait_share": round(waited / seconds, 4),
    }


def _agreed(stop: bool, device: torch.device) -> bool:
    """Whether any process was told to stop."""
    return stop if world_size() == 1 else bool(sum_over_ranks(torch.tensor(float(stop), device=device)).item())


@contextmanager
def _stop_signals() -> Iterator[list[BaseException]]:
    """A list that SIGTERM and the first interrupt fill, to be looked at between steps; a second interrupt is raised at once."""
    stop: list[BaseException] = []
    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals reach the main thread alone
        return

    def note(number: int, _: Any) -> None:
        if stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.append(KeyboardInterrupt() if number == signal.SIGINT else Terminated())

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    except RuntimeError as error:
        if not stop or "DataLoader worker" not in str(error):
            raise
        raise stop[0] from None  # the signal reached the loader's workers too: the step was not finished
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def try_out(config: TrainConfig, *, initial_weights: str = "", log: Log = print) -> None:
    """Check configuration and data and take one mini-batch forward and backward; writes nothing. Logs the memory it took."""
    run = prepare(config, initial_weights, log)
    for line in data_lines(run.train, run.config, run.model.heads):
        log(line)
    batch = next(iter(train_loader(run.train, replace(run.config, workers=0), epoch=0)))
    run.train_mode()
    began = time.perf_counter()
    parts = run.losses(run.images(batch), batch.targets)
    parts.total.backward()
    values = [p.detach().item() for p in (parts.box, parts.objectness, parts.classes)]
    seconds = time.perf_counter() - began
    if not all(math.isfinite(v) for v in values):
        raise YolomishError(f"the first batch's loss is not finite: box, objectness, classes = {values}")
    log(
        f"one mini-batch of {len(batch.images)} at {batch.images.shape[2]} px with {len(batch.targets)} boxes: box "
        f"{values[0]:.4f}, objectness {values[1]:.4f}, classes {values[2]:.4f}; {seconds:.1f} s (the first is slow), "
        f"{peak_memory(run.device) / 2**30:.2f} GiB at most; momentum and average will add "
        f"{sum(p.numel() * p.element_size() for p in run.model.parameters()) * 2 / 2**30:.2f} GiB"
    )
