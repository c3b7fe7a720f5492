"""A comparison's trainings as jobs: submitted through submitit, or as commands for any other scheduler.

Every job is ``yolomish train --resume FOLDER``: it begins the run that is planned in the folder, or goes on with it.
"""

from __future__ import annotations

import os
import shlex
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from yolomish.comparison.runs import Run
from yolomish.comparison.train import Log, name_of
from yolomish.errors import YolomishError, first_line
from yolomish.inference.export.packages import require
from yolomish.training.job import Training

CLUSTERS = ("local", "slurm")
LOGS = "jobs"  # in a run's folder
DAY_MIN = 24 * 60


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """Trains every run as a job of ``cluster``: slurm all at once, local one after the other on this machine.

    ``settings`` are submitit's parameters, such as timeout_min and slurm_partition, and ``processes`` of a run. An interrupt
    or SIGTERM cancels the jobs; one that trains saves itself, and a local one is waited for.
    """

    cluster: str
    settings: Mapping[str, Any]
    log: Log
    elsewhere: ClassVar[bool] = True

    def __call__(self, runs: Sequence[Run]) -> None:
        """Return when all runs are trained. YolomishError with a job's last line where some are not, when the others are."""
        require("submitit")
        jobs: list[tuple[Run, Any]] = []
        try:
            for run in runs:
                with _uninterrupted():
                    job = self._submit(run)
                    jobs.append((run, job))
                self.log(f"{name_of(run)}: job {job.job_id}, log in {job.paths.stderr}")
                if self.cluster == "local":
                    job.wait()
            failed = [text for run, job in jobs if (text := self._failure(run, job))]
        except BaseException:
            self.log("cancelling the jobs; what trains saves itself")
            for _, job in jobs:
                self._cancel(job)
            raise
        if failed:
            raise YolomishError(f"{len(failed)} of {len(jobs)} jobs failed; the same command trains them again. {failed[0]}")

    def _cancel(self, job: Any) -> None:
        if self.cluster != "local":
            job.cancel(check=False)
        elif not job.done():
            os.kill(int(job.job_id), signal.SIGTERM)  # which it hands on; its own way kills the job a second later
            job.wait()

    def _submit(self, run: Run) -> Any:
        config = run.trained()
        settings = dict(self.settings)
        processes = settings.pop("processes", 1)
        if not isinstance(processes, int) or processes < 1:
            raise YolomishError(f"--job-set processes must be a whole number from 1, not {str(processes)[:60]!r}")
        given = {"timeout_min": DAY_MIN, "cpus_per_task": processes * (config.workers + 1)}
        if self.cluster == "slurm" and config.device != "cpu":
            given["gpus_per_node"] = processes
        submitit, requeues = require("submitit"), {f"{self.cluster}_max_num_timeout": 100}
        try:
            executor = submitit.AutoExecutor(folder=run.path / LOGS, cluster=self.cluster, **requeues)
            executor.update_parameters(name=run.path.name, **{**given, **settings})
            return executor.submit(Training(str(run.path.resolve()), processes))
        except Exception as error:  # submitit asserts, too, of a setting that is of another type
            raise YolomishError(f"--jobs {self.cluster} does not start {name_of(run)}: {first_line(error)}") from None

    def _failure(self, run: Run, job: Any) -> str:
        """What went wrong with a job, when it has ended; empty where nothing did."""
        error = job.exception()
        if error is None and job.result() == 0:
            return ""
        lines = [line for line in (job.stderr() or "").splitlines() if line.strip()]
        return f"{name_of(run)}: {first_line(lines[-1] if lines else str(error))} ({job.paths.stderr})"


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """A terminal's interrupt does not reach what is started in here, which inherits that it is ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Planned(Exception):
    """Runs are planned, and ``commands`` train them, one each."""

    def __init__(self, commands: tuple[str, ...]) -> None:
        super().__init__(f"{len(commands)} runs to train")
        self.commands = commands


class Printed:
    """Trains nothing: raises ``Planned`` with the commands that do."""

    elsewhere: ClassVar[bool] = True

    def __call__(self, runs: Sequence[Run]) -> None:
        if runs:
            raise Planned(tuple(train_command(run.path) for run in runs))


def train_command(folder: Path) -> str:
    """The shell command that trains the run planned in a folder, from the folder in which it was planned."""
    return f"cd {shlex.quote(str(Path.cwd()))} && yolomish train --resume {shlex.quote(str(folder.resolve()))}"
