"""How OpenMP's threads wait for one another while a network trains on a CPU, adapted to what else the machine runs.

They spin, which is quickest where nobody else wants the cores: sleeping costs half as much again on two quiet ones. Where others
do, the thread that is waited for does not run while the others spin, and a step takes up to ten times as long
(benchmarks/results/busy.md). Which is better is measured, by the steps themselves, whenever others are busy. GNU's OpenMP,
which torch brings on Linux, reads its settings once, but spins a thousandth as long while a process has more threads of its
than cores: so a few more are made, which do nothing. How many threads share the work, and so every bit, stays as it is.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import threading
import time
from collections import deque
from pathlib import Path

import torch

from yolomish.kernels.native import gnu_openmp
from yolomish.threads import user_decided
from yolomish.training.record import Log

LOOK_S = 2.0  # between looks at the load
OTHERS = 0.25  # cores that others take before anything is tried
KEEP_S = 120.0  # for which what was found better is kept
CHANGED = 1.3  # times as long or as short steps call for a new trial at once
TRIAL = 3  # steps
STAT = Path("/proc/stat")


class Sleepers:
    """Idle threads of torch's OpenMP beside the working ones, together more than the cores; OSError where it is not GNU's."""

    def __init__(self) -> None:
        found = gnu_openmp()
        if not found:
            raise OSError("torch has no GNU OpenMP here")
        self._run = ctypes.CDLL(found[0]).GOMP_parallel
        self._run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        self._nothing = ctypes.cast(ctypes.CDLL(None).free, ctypes.c_void_p)  # of NULL does nothing
        self._end: threading.Event | None = None
        self._thread: threading.Thread | None = None

    def __bool__(self) -> bool:
        return self._end is not None

    def set(self, there: bool) -> None:
        """Make the threads or end them."""
        if there == bool(self):
            return
        if self._end and self._thread:
            self._end.set()
            self._thread.join()
            self._end = self._thread = None
            return
        count = max(2, len(os.sched_getaffinity(0)) + 2 - torch.get_num_threads())
        ready, self._end = threading.Event(), threading.Event()

        def hold(end: threading.Event) -> None:
            self._run(self._nothing, None, count, 0)
            ready.set()
            end.wait()

        self._thread = threading.Thread(target=hold, args=(self._end,), name="idle OpenMP threads", daemon=True)
        self._thread.start()
        ready.wait()


def busy_seconds() -> float:
    """Seconds that this process's cores have worked for others, since whenever; OSError or AttributeError without Linux."""
    cores = {f"cpu{i}" for i in os.sched_getaffinity(0)}
    ticks = 0
    for line in STAT.read_text(encoding="ascii").splitlines():
        name, *counts = line.split()
        if name in cores:
            user, nice, system, _, _, irq, soft, *_ = map(int, counts)
            ticks += user + nice + system + irq + soft
    return ticks / os.sysconf("SC_CLK_TCK") - time.process_time()


class Waiting:
    """Told of every step's seconds, lets threads sleep while they wait as long as that is better; ends with ``close``.

    Does nothing on a GPU, with one thread, where the user has set how OpenMP waits, or where torch's OpenMP is not GNU's.
    """

    def __init__(self, device: torch.device, log: Log) -> None:
        self._log, self._said = log, False
        self._sleepers: Sleepers | None = None
        self._recent: deque[float] = deque(maxlen=TRIAL)  # seconds of the last steps as threads wait now
        self._tried: list[float] | None = None  # of the steps of a trial
        self._decided, self._usual = 0.0, 0.0  # when, and a step's seconds then; 0: never
        if device.type != "cpu" or torch.get_num_threads() == 1 or user_decided():
            return
        try:
            self._looked, self._others = time.monotonic(), busy_seconds()
            self._sleepers = Sleepers()
        except (OSError, AttributeError):
            return

    def step(self, seconds: float) -> None:
        """A step took so many seconds."""
        sleepers, now = self._sleepers, time.monotonic()
        if sleepers is None:
            return
        if self._tried is not None:
            self._tried.append(seconds)
            if len(self._tried) == TRIAL:
                self._decide(sleepers, self._tried, now)
            return
        self._recent.append(seconds)
        if now - self._looked < LOOK_S:
            return
        others = busy_seconds()
        taken = (others - self._others) / (now - self._looked)
        self._looked, self._others = now, others
        if taken < OTHERS:
            if sleepers:
                sleepers.set(False)
                self._recent.clear()
            self._usual = 0.0
        elif len(self._recent) == TRIAL and self._is_due(now):
            sleepers.set(not sleepers)
            self._tried = []

    def _is_due(self, now: float) -> bool:
        """Whether it is time for a trial: the first, the next, or steps take another time than after the last."""
        usual, seconds = self._usual, statistics.median(self._recent)
        return not usual or now - self._decided >= KEEP_S or not usual / CHANGED < seconds < usual * CHANGED

    def _decide(self, sleepers: Sleepers, tried: list[float], now: float) -> None:
        if statistics.median(tried) < statistics.median(self._recent):
            self._recent = deque(tried, TRIAL)
        else:
            sleepers.set(not sleepers)
        self._tried, self._decided, self._usual = None, now, statistics.median(self._recent)
        self._looked, self._others = now, busy_seconds()
        if sleepers and not self._said:
            self._said = True
            self._log("other programs keep this machine busy: threads now sleep while they wait, and timings will be unsteady")

    def close(self) -> None:
        """Threads spin again."""
        if self._sleepers is not None:
            self._sleepers.set(False)
