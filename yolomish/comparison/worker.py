"""One training in a process of its own, so that arms can run on several devices at once: ``python -m`` this with a folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, Queue
from threading import Lock

from yolomish.config import TrainConfig, from_dict
from yolomish.errors import YolomishError

IDENTITY = "identity.json"  # written before training: what must be equal for a run in a folder to stand for another
DEVICE = "YOLOMISH_WORKER_DEVICE"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training that is left to do: the run's name for the log, and its folder with ``identity.json``."""

    name: str
    folder: Path


def train_folder(folder: Path, device: str, log: Callable[[str], None]) -> None:
    """Train, or go on with, the run that ``identity.json`` in ``folder`` describes, on ``device``."""
    from yolomish.training.loop import fit

    saved = json.loads((folder / IDENTITY).read_text(encoding="utf-8"))
    config = from_dict(TrainConfig, saved["config"], str(folder / IDENTITY))
    config = replace(config, device=device or config.device)
    config = replace(config, initial_weights=saved.get("weights", ""))
    fit(config, folder, resume=(folder / "last.pt").exists(), log=log)


def train_all(jobs: Sequence[Job], devices: Sequence[str], log: Callable[[str], None]) -> None:
    """Train every job, as many at once as there are devices, each in its own process.

    The first failure stops the others, which save themselves (SIGTERM), and is raised as a YolomishError with the
    process's last line; a comparison started again goes on from there.
    """
    waiting: Queue[Job] = Queue()
    for job in jobs:
        waiting.put(job)
    running: list[subprocess.Popen[str]] = []
    failed: list[str] = []
    lock = Lock()

    def serve(device: str) -> None:
        while not failed:
            try:
                job = waiting.get_nowait()
            except Empty:
                return
            log(f"training {job.name} on {device} -> {job.folder}")
            process = subprocess.Popen(
                [sys.executable, "-m", "yolomish.comparison.worker", str(job.folder)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, DEVICE: device},
            )
            with lock:
                running.append(process)
            last = ""
            for line in process.stdout or ():
                last = line.strip() or last
                log(f"[{job.name}] {line.rstrip()}")
            if process.wait() and not failed:
                failed.append(f"{job.name} on {device} stopped with code {process.returncode}: {last}")

    try:
        with ThreadPoolExecutor(len(devices)) as pool:
            try:
                list(pool.map(serve, devices))
            except BaseException:
                failed.append("interrupted")
                raise
            finally:
                for process in running:
                    if process.poll() is None:
                        process.send_signal(signal.SIGTERM)
    finally:
        for process in running:
            process.wait()
    if failed:
        raise YolomishError(failed[0])


def main() -> None:
    """Train the folder named on the command line; what the user can mend is one line and exit code 2."""
    try:
        train_folder(Path(sys.argv[1]), os.environ.get(DEVICE, ""), lambda text: print(text, flush=True))
    except YolomishError as error:
        print(f"yolomish: {error}", flush=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
