"""A training as a job that submitit keeps: it and its supervisor load this module, which therefore does without torch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any

STOPPED = (
    128 + signal.SIGINT,
    128 + signal.SIGTERM,
    -signal.SIGINT,
    -signal.SIGTERM,
)  # exit codes of a training that saved itself


class Training:
    """A job that trains ``folder`` with so many ``processes``. When the cluster takes its machine away the run saves itself,
    and goes on when requeued."""

    def __init__(self, folder: str, processes: int = 1) -> None:
        self.folder, self.processes = folder, processes
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> list[str]:
        """What trains: torchrun starts several processes."""
        several = ("torch.distributed.run", "--standalone", f"--nproc-per-node={self.processes}", "-m")
        return [sys.executable, "-m", *several * (self.processes > 1), "yolomish", "train", "--resume", self.folder]

    def __call__(self) -> int:
        """The exit code of the training; SystemExit where a signal stopped it, so that the job has no result and a requeued
        one may go on."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _leave)
        # the cluster's signal goes to all processes, and is for the job alone
        self._process = subprocess.Popen(self.command, preexec_fn=lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN))
        try:
            code = self._process.wait()
        finally:
            self._stop()
        if code in STOPPED:
            sys.exit(code)
        return code

    def checkpoint(self) -> Any:
        """What the requeued job calls (submitit's protocol), once the training here is saved."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Slurm ends the requeued job with it, which ends by itself
        self._stop()
        from submitit.helpers import DelayedSubmission  # an extra, and there where this runs

        return DelayedSubmission(Training(self.folder, self.processes))

    def _stop(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.terminate()
            with suppress(ChildProcessError):  # not Popen.wait, whose lock the interrupted call may hold
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)


def _leave(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # clusters send it again
    raise SystemExit(128 + signal.SIGTERM)
