"""The only training loop. Everything random follows from the configuration's seed, so the same run has the same losses."""

from __future__ import annotations

import math
import signal
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from yolomish.config import TrainConfig, save_yaml
from yolomish.data.loader import WorkerLost, lost_workers
from yolomish.errors import YolomishError
from yolomish.files import clear_partial_files, holding, make_folder
from yolomish.ops.device import choose_device
from yolomish.ops.distributed import process_group, rank, sum_over_ranks, world_size
from yolomish.training.build import check_same, data_marks, prepare, restore
from yolomish.training.plots import save_curves
from yolomish.training.record import TIMES, Log, columns, epoch_line, peak_memory, result_row, save_rows
from yolomish.training.run import Run
from yolomish.training.trackers import Trackers
from yolomish.training.waiting import Waiting
from yolomish.types import Metrics, size_text
from yolomish.weights.checkpoint import config_of, read_checkpoint, save_checkpoint

CUDA_WINDOW = 10  # steps between looks at the losses, each of which waits for the GPU
SAVE_SECONDS = 600.0
DRAW_SECONDS = 10.0  # between drawings of the curves, each of which takes half a second


class Terminated(BaseException):
    """SIGTERM arrived; the run was saved."""


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a run left: its checkpoints, the last epoch's metrics, the median step in ms (waiting for data left out),
    the peak memory (CUDA: allocated by torch; CPU: the process's resident set) and the rows of results.csv,
    whose metrics are called ``columns``."""

    best: Path
    last: Path
    metrics: Metrics
    step_ms: float
    peak_memory_bytes: int
    history: list[dict[str, Any]]
    columns: tuple[str, ...]


@dataclass(kw_only=True)
class _State:
    """Where a run stands: finished epochs, steps done in the next one and the sums of their losses."""

    epoch: int = 0
    position: int = 0
    sums: list[float] = field(default_factory=list)
    best_ap: float = -math.inf  # of the task's primary metric; named as in the checkpoints of earlier versions
    history: list[dict[str, Any]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, progress: dict[str, Any], run: Run, path: Path) -> _State:
        """What a checkpoint says; YolomishError where that is nothing that a run can go on from."""
        known = {field.name: progress[field.name] for field in fields(cls) if field.name in progress}
        state = cls(**known)
        rows = (state.history, state.timings)
        good = isinstance(state.sums, list) and len(state.sums) == len(run.task.losses) and len(known) == len(fields(cls))
        good = good and all(isinstance(value, int | float) for value in (*state.sums, state.best_ap))
        good = good and all(isinstance(of, list) and all(isinstance(row, dict) for row in of) for of in rows)
        good = good and all([row.get("epoch") for row in of] == list(range(1, state.epoch + 1)) for of in rows)
        if not good or state.position >= max(run.steps, 1):
            raise YolomishError(f"{path} does not say where its run stands: start from it with yolomish train --weights {path}")
        return state

    def steps_done(self, run: Run) -> int:
        """Optimiser steps since the start."""
        return self.epoch * run.steps + self.position

    def save(self, run: Run, path: Path) -> None:
        save_checkpoint(
            path,
            config=run.config,
            model=run.network,
            names=run.train.names,
            average=run.average.module if run.average else None,
            updates=int(run.average.n_averaged) - 1 if run.average else 0,
            optimizer=run.optimizer,
            scaler=run.scaler,
            progress=vars(self)
            | {"images_seen": self.steps_done(run) * min(run.config.batch, len(run.train)), "data": data_marks(run)},
        )


def fit(
    config: TrainConfig,
    out_dir: Path,
    *,
    resume: bool = False,
    track: Sequence[str] = ("tensorboard",),
    log: Log = print,
) -> FitResult:
    """Train ``config`` and leave best.pt, last.pt, results.csv, timing.csv, curves.png and config.yaml in ``out_dir``.

    The number of classes is the data's. ``resume`` goes on from ``out_dir/last.pt`` and has, on a CPU, the same bits as a
    run that was not interrupted. A loss that is not finite is a YolomishError and leaves last.pt as it was. At SIGTERM or an
    interrupt the step is finished and saved, the log says how to go on, and ``Terminated`` or KeyboardInterrupt is raised.
    Under torchrun every process calls this and process 0 alone writes. ``track`` names what else is told of the run, by
    ``trackers.TRACKERS``.
    """
    out_dir = Path(out_dir)
    last = out_dir / "last.pt"
    with process_group(str(choose_device(config.device))) as device, ExitStack() as held:
        if rank():
            log = _silent
        if resume and last.exists() and not rank():
            held.enter_context(holding(out_dir, "the run in"))
        _refuse_run(last, resume)
        saved = read_checkpoint(last) if resume else None
        if saved and config.mini_batch < 0:  # what the GPU held when the run began
            config = replace(config, mini_batch=config_of(saved, last).mini_batch)
        run = prepare(replace(config, device=device) if world_size() > 1 else config, log, resumed=saved is not None)
        state = _State(sums=[0.0] * len(run.task.losses))
        if saved:
            check_same(run, saved, last)
            restore(run, saved, last)
            state = _State.of(saved["progress"], run, last)
            log(f"resuming {out_dir} after epoch {state.epoch} of {run.config.epochs}, step {state.position} of {run.steps}")
        for line in run.task.describe_data(run.train, run.config, run.network):
            log(line)
        if rank() == 0:
            if not resume:
                held.enter_context(holding(make_folder(out_dir), "the run in"))
                _refuse_run(last, resume)  # another process may have been here while this one prepared
            clear_partial_files(out_dir)
            save_yaml(run.config, out_dir / "config.yaml")
            if saved:
                save_rows(state.history, columns(run.task), out_dir / "results.csv")
        with Trackers(track if rank() == 0 else (), out_dir, run.config, log) as trackers:
            result = _train(run, state, out_dir, trackers, log)
            trackers.finish({**result.metrics.values, "step_ms": result.step_ms, "peak_memory_bytes": result.peak_memory_bytes})
            return result


def _silent(_: str) -> None:
    pass


def _refuse_run(last: Path, resume: bool) -> None:
    if last.exists() and not resume:
        raise YolomishError(f"{last.parent} already holds a run: resume it or choose another folder")


def _train(run: Run, state: _State, out_dir: Path, trackers: Trackers, log: Log) -> FitResult:
    config, last, best = run.config, out_dir / "last.pt", out_dir / "best.pt"
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(run.device)
    task = run.task
    metrics: Metrics | None = None
    drawn = time.monotonic()
    try:
        with _stop_signals() as stop, lost_workers(), closing(Waiting(run.device, log)) as waiting:
            for epoch in range(state.epoch, config.epochs):
                began = time.perf_counter()
                lr, times = _epoch(run, state, epoch, out_dir, stop, waiting)
                metrics = None
                if (epoch + 1) % config.eval_every == 0 or epoch + 1 == config.epochs:
                    metrics = run.evaluate()
                row = result_row(task, epoch + 1, [s / run.steps for s in state.sums], lr, metrics)
                times |= {"peak_memory_bytes": peak_memory(run.device), "seconds": round(time.perf_counter() - began, 3)}
                state.history.append(row)
                state.timings.append(times)
                state.epoch, state.position, state.sums = epoch + 1, 0, [0.0] * len(task.losses)
                if rank() == 0:
                    if metrics is not None and metrics.score > state.best_ap:
                        state.best_ap = metrics.score
                        state.save(run, best)
                    state.save(run, last)
                    save_rows(state.history, columns(task), out_dir / "results.csv")
                    save_rows(state.timings, TIMES, out_dir / "timing.csv")
                    if state.epoch == config.epochs or time.monotonic() - drawn > DRAW_SECONDS:
                        drawn = time.monotonic()
                        save_curves(state.history, task.losses, task.metrics, out_dir / "curves.png")
                    trackers.add(row | times, epoch + 1)
                log(epoch_line(task, row, times, config.epochs))
    except WorkerLost as error:
        way = f"go on with: yolomish train --resume {out_dir}" if last.exists() else "start again, there is no checkpoint yet"
        raise YolomishError(f"{error}; {way}") from None
    except (KeyboardInterrupt, Terminated):
        if last.exists():
            log(f"stopped in epoch {state.epoch + 1}; go on with: yolomish train --resume {out_dir}")
        else:
            log(f"stopped in epoch {state.epoch + 1}, before the first checkpoint: nothing to resume, start again")
        raise
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
        columns=task.metrics,
    )


def _epoch(
    run: Run, state: _State, epoch: int, out_dir: Path, stop: list[BaseException], waiting: Waiting
) -> tuple[float, dict[str, Any]]:
    """Train the rest of an epoch from ``state.position``, adding to its sums; returns the last rate and the timings."""
    config = run.config
    loader = run.task.loader(run.train, config, run.network, epoch=epoch, first_step=state.position)
    images = min(config.batch, len(run.train))
    minis = math.ceil(images / (config.mini_batch or config.batch))
    window = steps_between_looks(run.device)
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
            run.task.draw(batches[0], run.train.names, out_dir / f"train_batch{position}.jpg")
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
                    f"the loss is not finite in epoch {epoch + 1}, step {number - len(values) + 1 + i}: {_named(run, row)} at "
                    f"lr {lr:.3g}; try a lower --lr or --amp off"
                )
            state.sums = [a + b for a, b in zip(state.sums, row, strict=True)]
        state.position = position + 1
        now = time.perf_counter()
        step_times.append((now - window_began - window_wait) / len(pending))
        waiting.step(step_times[-1])
        waited += window_wait
        window_began, window_wait, pending = now, 0.0, []
        bar.set_postfix_str(
            f"{_named(run, row)} lr {lr:.2e} {images / step_times[-1]:.1f} img/s wait {waited / (now - began):.0%}"
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


def steps_between_looks(device: torch.device) -> int:
    """After how many steps the losses are read, which waits for a GPU."""
    return CUDA_WINDOW if device.type == "cuda" else 1


def _named(run: Run, values: Sequence[float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in zip(run.task.losses, values, strict=True))


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
    except WorkerLost:
        if stop:
            raise stop[0] from None  # the signal reached the loader's workers too: the step was not finished
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def try_out(config: TrainConfig, *, log: Log = print) -> None:
    """Check configuration and data and take one mini-batch forward and backward; writes nothing. Logs the memory it took."""
    run = prepare(config, log)
    for line in run.task.describe_data(run.train, run.config, run.network):
        log(line)
    here = replace(run.config, workers=0)
    batch = next(iter(run.task.loader(run.train, here, run.network, epoch=0)))
    run.train_mode()
    began = time.perf_counter()
    losses = run.losses(run.images(batch), batch.targets)
    losses.total.backward()
    values = losses.values().tolist()
    seconds = time.perf_counter() - began
    if not all(math.isfinite(v) for v in values):
        raise YolomishError(f"the first batch's loss is not finite: {_named(run, values)}")
    height, width = batch.images.shape[2:]
    log(
        f"one mini-batch of {len(batch.images)} at {size_text((height, width))} px with {len(batch.targets)} targets: "
        f"{_named(run, values)}; {seconds:.1f} s (the first is slow), "
        f"{peak_memory(run.device) / 2**30:.2f} GiB at most; momentum and average will add "
        f"{sum(p.numel() * p.element_size() for p in run.network.parameters()) * 2 / 2**30:.2f} GiB"
    )
