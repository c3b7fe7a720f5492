"""Processes for tests, forked from one that has torch and yolomish loaded: a new interpreter takes two seconds for that."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

FORKING = multiprocessing.get_context("forkserver")
LOADED = ["yolomish.training.loop", "yolomish.networks", "torchvision", "matplotlib.figure", "tensorboard.compat.tensorflow_stub"]
FORKING.set_forkserver_preload(LOADED)


class Started:
    """``function(*arguments)`` in a process of its own group, whose stderr is ``errors``; ``environment`` is added to its own."""

    def __init__(self, errors: Path, function: Callable[..., object], *arguments: Any, environment: dict[str, str] | None = None):
        self.errors = errors
        self._process = FORKING.Process(target=_run, args=(errors, environment or {}, function, arguments))
        self._process.start()
        assert self._process.pid
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """The exit code, negative for a signal's; None while it runs."""
        return self._process.exitcode

    def kill(self) -> int:
        """Its exit code after SIGKILL, which may have come too late."""
        self._process.kill()
        return self.wait(30)

    def wait(self, seconds: float = 240) -> int:
        """The exit code; what it printed on stderr is shown unless that is 0. AssertionError where it runs on."""
        self._process.join(seconds)
        code = self.poll()
        assert code is not None, f"process {self.pid} still runs after {seconds:g} s"
        if code:
            print(self.errors.read_text()[-3000:])
        return code


def _run(errors: Path, environment: dict[str, str], function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    os.setsid()
    os.environ.update(environment)
    with errors.open("w") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    function(*arguments)


def all_ranks(folder: Path, function: Callable[..., object], *arguments: Any, processes: int = 2) -> list[int]:
    """The exit codes of ``processes`` that run ``function(*arguments)`` with the variables that torchrun sets."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    ranks = [
        Started(folder / f"rank{k}.txt", function, *arguments, environment=shared | {"RANK": str(k), "LOCAL_RANK": str(k)})
        for k in range(processes)
    ]
    return [rank.wait() for rank in ranks]
