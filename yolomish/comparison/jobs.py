"""A comparison's trainings as jobs: submitted through submitit, or as commands for any other scheduler.

Every job is ``yolomish train --resume FOLDER``: it begins the run that is planned in the folder, or goes on with it.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from yolomish.comparison.runs import Run
from yolomish.comparison.train import Log, name_of
from yolomish.errors import YolomishError, first_line
from yolomish.inference.export.packages import require

CLUSTERS = ("local", "slurm")
LOGS = "jobs"  # in a run's folder
DAY_MIN = 24 * 60


class Training:
    """A job that trains ``folder``. When the cluster takes its machine away the run saves itself, and goes on when requeued."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """The exit code of the training."""
        command = [sys.executable, "-m", "yolomish", "train", "--resume", self.folder]
        # the cluster's signal goes to all processes, and is for the job alone
        self._process = subprocess.Popen(command, preexec_fn=lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN))
        try:
            return self._process.wait()
        finally:
            self._stop()

    def checkpoint(self) -> Any:
        """What the requeued job calls (submitit's protocol), once the training here is saved."""
        self._stop()
        return require("submitit").helpers.DelayedSubmission(Training(self.folder))

    def _stop(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.terminate()
            with suppress(ChildProcessError):  # not Popen.wait, whose lock the interrupted call may hold
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """Trains every run as a job of ``cluster``: slurm all at once, local one after the other on this machine.

    ``settings`` are submitit's parameters, such as timeout_min and slurm_partition. An interrupt cancels the jobs.
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
                job = self._submit(run)
                jobs.append((run, job))
                self.log(f"{name_of(run)}: job {job.job_id}, log in {job.paths.stderr}")
                if self.cluster == "local":
                    job.wait()
            failed = [text for run, job in jobs if (text := self._failure(run, job))]
        except BaseException:
            for _, job in jobs:
                job.cancel(check=False)
            raise
        if failed:
            raise YolomishError(f"{len(failed)} of {len(jobs)} jobs failed; the same command trains them again. {failed[0]}")

    def _submit(self, run: Run) -> Any:
        config = run.trained()
        given = {"timeout_min": DAY_MIN, "cpus_per_task": config.workers + 1}
        if self.cluster == "slurm" and config.device != "cpu":
            given["gpus_per_node"] = 1
        try:
            requeues = {f"{self.cluster}_max_num_timeout": 100}
            executor = require("submitit").AutoExecutor(folder=run.path / LOGS, cluster=self.cluster, **requeues)
            executor.update_parameters(name=run.path.name, **{**given, **self.settings})
            return executor.submit(Training(str(run.path.resolve())))
        except (RuntimeError, NameError, TypeError, ValueError, NotImplementedError, OSError) as error:
            raise YolomishError(f"--jobs {self.cluster} does not start {name_of(run)}: {first_line(str(error))}") from None

    def _failure(self, run: Run, job: Any) -> str:
        """What went wrong with a job, when it has ended; empty where nothing did."""
        error = job.exception()
        if error is None and job.result() == 0:
            return ""
        lines = [line for line in (job.stderr() or "").splitlines() if line.strip()]
        return f"{name_of(run)}: {first_line(lines[-1] if lines else str(error))} ({job.paths.stderr})"


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
