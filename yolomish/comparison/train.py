"""Trains what a comparison needs: which runs, in which order, what is done already, and several at once on several devices."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, Queue
from threading import Lock
from typing import Any, ClassVar, Protocol

import torch

from yolomish.comparison.arms import NO_RESULT, Arm
from yolomish.comparison.environment import environment
from yolomish.comparison.runs import IDENTITY, Run, Start, State, initial_kernels, read_identity
from yolomish.config import TrainConfig, config_difference, from_dict, to_dict
from yolomish.errors import YolomishError
from yolomish.files import make_folder, write_json
from yolomish.networks.scope import activation_files
from yolomish.ops.device import choose_device
from yolomish.threads import usable_cores
from yolomish.training.build import with_initial_weights
from yolomish.training.loop import Terminated, fit
from yolomish.training.memory import autocast_type

Log = Callable[[str], None]
ELSEWHERE = "elsewhere"  # in identity.json of a run that another machine trains
DEVICE = "YOLOMISH_WORKER_DEVICE"
WORKER = (sys.executable, "-c", "from yolomish.comparison.train import main; main()")  # and the run's folder


def plan(arms: Sequence[Arm], seeds: Sequence[int], out_dir: Path) -> list[Run]:
    """Every arm at every seed, with what each starts from. Each seed's arms come before the next, odd rounds in reverse
    order, so that a machine that slows down does not favour one.

    YolomishError where arms of equal seed and weights start from different kernels, or a weights file is missing.
    """
    arms = [replace(arm, config=with_initial_weights(arm.config)) for arm in arms]
    runs = []
    for turn, seed in enumerate(seeds):
        first: dict[tuple[int, str], Run] = {}
        for arm in arms if turn % 2 == 0 else arms[::-1]:
            config = arm.seeded(seed)
            sha256 = config.initial_weights_sha256
            start = Start(weights=config.initial_weights, sha256=sha256, kernels=initial_kernels(config, sha256))
            path = out_dir / f"{arm.slug}-seed{config.seed}"
            run = Run(arm=arm.label, seed=seed, path=path, home=path, state=State.PLANNED, config=config, start=start)
            other = first.setdefault((arm.seed_offset, sha256), run)
            if other.start.kernels != start.kernels:
                raise YolomishError(
                    f"NOT CONTROLLED: {run.arm!r} starts from other kernels than {other.arm!r} at seed {seed}: "
                    "an activation must not draw random numbers when it is built"
                )
            runs.append(run)
    return runs


class Trainer(Protocol):
    """Trains planned runs, whose folders hold identity.json, to their end; ``elsewhere``: maybe on other devices than here."""

    elsewhere: ClassVar[bool]

    def __call__(self, runs: Sequence[Run]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Here:
    """Trains on this machine, one run after the other or on several ``devices`` at once."""

    devices: Sequence[str]
    log: Log
    elsewhere: ClassVar[bool] = False

    def __call__(self, runs: Sequence[Run]) -> None:
        if len(self.devices) > 1:
            train_all(runs, self.devices, self.log)
            return
        for i, run in enumerate(runs):
            self.log(f"[{i + 1}/{len(runs)}] training {name_of(run)} -> {run.path}")
            train_folder(run.path, self.devices[0] if self.devices else "", self.log)


def train(runs: Sequence[Run], ran_on: Mapping[str, str], trainer: Trainer, log: Log) -> list[Run]:
    """Let ``trainer`` train what is not finished; returns all runs, arm after arm.

    ``ran_on`` is what they run on (see ``environment.environment``). YolomishError, before any training, where a
    run's folder holds one with other settings.
    """
    jobs = []
    for run in runs:
        identity = _identity(run, ran_on)
        held = run.last.exists()
        if held and not _same_run(run.path, identity):
            raise YolomishError(
                f"{run.path} holds a run with other settings, activation code, torch or device: "
                "choose another folder for this comparison, or delete that one"
            )
        if held and run.read().state is State.FINISHED:
            log(f"{name_of(run)}: already trained in {run.path}")
        else:
            jobs.append((run, identity))
    for run, identity in jobs:
        make_folder(run.path)
        write_json(run.path / IDENTITY, identity | ({ELSEWHERE: True} if trainer.elsewhere else {}))
    trainer([run for run, _ in jobs])
    order = list(dict.fromkeys(run.arm for run in runs))
    return sorted((run.read() for run in runs), key=lambda run: (order.index(run.arm), run.seed))


def side_by_side(runs: int, device: str) -> tuple[str, ...]:
    """Devices on which so many runs train soonest where ``device`` is this machine's one: itself, but on a CPU a place for
    each run, up to the cores: a step of the demo's network took 116 ms of processor time on one thread, 247 ms on two."""
    chosen = choose_device(device)
    return (str(chosen),) * (min(runs, usable_cores()) if chosen.type == "cpu" else 1)


def name_of(run: Run) -> str:
    """A run in a log: its arm and the seed that it trains with."""
    return f"{run.arm}, seed {run.trained().seed}"


def _identity(run: Run, ran_on: Mapping[str, str]) -> dict[str, Any]:
    # What must be equal for a finished run to stand for this one: an activation file can change under an equal name.
    config = run.trained()
    sources = activation_files(config.model)
    return {"config": to_dict(config), "activation_sources": sources, "ran_on": _ran_on(ran_on, config)}


def _ran_on(ran_on: Mapping[str, str], config: TrainConfig) -> dict[str, str]:
    computes = autocast_type(config.amp, choose_device(config.device)) or torch.float32
    found = {key: ran_on[key].split(" (commit")[0] for key in ("yolomish", "torch", "device")}
    return found | {"precision": str(computes).removeprefix("torch.")}


def _same_run(folder: Path, identity: dict[str, Any]) -> bool:
    saved = read_identity(folder)
    try:
        theirs = from_dict(TrainConfig, saved["config"], IDENTITY)  # settings that came later have their defaults
    except (KeyError, TypeError, YolomishError):
        return False
    ours = from_dict(TrainConfig, identity["config"], IDENTITY)
    if config_difference(theirs, ours).keys() - NO_RESULT:
        return False
    there, here = saved.get("ran_on"), identity["ran_on"]
    if isinstance(there, dict):
        if saved.get(ELSEWHERE):  # its device is the one that it got, which may compute in another precision
            here = here | {key: there.get(key) for key in ("device", "precision")}
        if "precision" not in there:  # from when CPUs computed in float32 whatever amp said
            there = there | {"precision": "float32" if there.get("device") == "cpu" else here["precision"]}
    return saved.get("activation_sources") == identity["activation_sources"] and there == here


def planned(folder: Path, device: str = "") -> TrainConfig:
    """The configuration of the run that is planned in ``folder``, to train on ``device`` (empty: its own).

    identity.json of a run that was planned for another machine says from then on what this one is.
    """
    identity = read_identity(folder)
    config = from_dict(TrainConfig, identity["config"], str(folder / IDENTITY))
    if identity.get(ELSEWHERE) and not int(os.environ.get("RANK", "0")):
        device = device or config.device
        ran_on = _ran_on(environment(device), replace(config, device=device))
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        if processes > 1:
            ran_on["device"] = f"{processes} x {ran_on['device']}"
        write_json(folder / IDENTITY, identity | {"ran_on": ran_on})
    return config


def train_folder(folder: Path, device: str, log: Log) -> None:
    """Train, or go on with, the run that ``identity.json`` in ``folder`` describes, on ``device`` (empty: its own)."""
    config = from_dict(TrainConfig, read_identity(folder)["config"], str(folder / IDENTITY))
    fit(replace(config, device=device or config.device), folder, resume=(folder / "last.pt").exists(), log=log)


def train_all(runs: Sequence[Run], devices: Sequence[str], log: Log, *, worker: Sequence[str] = WORKER) -> None:
    """Train planned runs, as many at once as there are devices, each in its own process.

    Those on the CPU share this process's number of threads evenly. ``worker`` is the command that trains the folder named
    after it, on the device in YOLOMISH_WORKER_DEVICE. The first failure, or an interrupt, stops the others at once; they
    save themselves (SIGTERM), and a comparison started again goes on from there. The failure is a YolomishError with the
    process's last line.
    """
    waiting: Queue[Run] = Queue()
    for run in runs:
        waiting.put(run)
    running: list[subprocess.Popen[str]] = []
    stopped: list[str] = []
    lock = Lock()
    on_cpu = sum(device == "cpu" for device in devices)
    threads = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // on_cpu))} if on_cpu else {}

    def stop(reason: str) -> None:
        with lock:
            stopped.append(reason)
            for process in running:
                if process.poll() is None:
                    process.terminate()

    def serve(device: str) -> None:
        while True:
            with lock:
                try:
                    run = None if stopped else waiting.get_nowait()
                except Empty:
                    run = None
                if run is None:
                    return
                process = subprocess.Popen(
                    [*worker, str(run.path)],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    env={**os.environ, **threads, DEVICE: device},
                )
                running.append(process)
            log(f"training {name_of(run)} on {device} -> {run.path}")
            last = ""
            for line in process.stdout or ():
                last = line.strip() or last
                log(f"[{name_of(run)}] {line.rstrip()}")
            if process.wait():
                stop(f"{name_of(run)} on {device} stopped with code {process.returncode}: {last}")

    with _sigterm_raised(), ThreadPoolExecutor(len(devices)) as pool:
        try:
            list(pool.map(serve, devices))
        except BaseException:
            stop("interrupted")
            raise
    if stopped:
        raise YolomishError(stopped[0])


@contextmanager
def _sigterm_raised() -> Iterator[None]:
    """SIGTERM raises ``Terminated`` in here, as far as this is the main thread, which alone takes signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(*_: Any) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main() -> None:
    """Train the folder named on the command line; what the user can fix is one line and exit code 2."""
    try:
        train_folder(Path(sys.argv[1]), os.environ.get(DEVICE, ""), lambda text: print(text, flush=True))
    except YolomishError as error:
        print(f"yolomish: {error}", flush=True)
        sys.exit(2)
