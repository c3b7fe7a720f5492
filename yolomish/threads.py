"""Threads on a machine that others use too: decided before torch, whose OpenMP reads its settings once, is loaded.

OpenMP's threads wait for one another by spinning, which is quickest on a quiet machine. Where other programs take the cores,
the one that is waited for does not run while the others spin: a training step on two cores beside eight busy programs took
19 times its fair share of them, and a ninth of that where threads sleep while they wait (benchmarks/results/busy.md).
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

OURS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # a user who set one of these has decided
QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """The cores that this process may use: its affinity, and its share where a control group (a container) has one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = QUOTA.read_text(encoding="ascii").split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or "max"
        return cores


def is_busy() -> bool:
    """Whether other programs kept more than half a core of each that there is busy in the last minute."""
    try:
        return os.getloadavg()[0] > 0.5 * (os.cpu_count() or 1)
    except (AttributeError, OSError):  # Windows has none
        return False


def waits_passively() -> bool:
    """Whether threads sleep while they wait, by the environment."""
    return os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive"


def user_decided() -> bool:
    """Whether the environment says how threads wait."""
    return any(name in os.environ for name in OURS)


def busy_note(*, training: bool = False) -> str:
    """What to say once before anything is timed: that the machine ``is_busy``, or nothing. A ``training`` sees to the rest."""
    if not is_busy():
        return ""
    note = "other programs keep this machine busy: timings will be unsteady"
    if os.environ.get("OMP_NUM_THREADS") == "1" or (training and not user_decided()):  # one thread waits for nobody
        return note
    how = "sleep" if waits_passively() else "spin (OMP_WAIT_POLICY=PASSIVE would let them sleep)"
    return f"{note}; threads {how} while they wait"


def settle_threads(*, training: bool = False) -> None:
    """Set, for this process and those it starts, how many threads there are and how they wait.

    As many as ``usable_cores``; they sleep while they wait where the machine ``is_busy``, but for a ``training`` on Linux, which
    adapts as it goes (``training.waiting``). What the environment states stands.
    """
    cores = usable_cores()
    if "OMP_NUM_THREADS" not in os.environ and cores < (os.cpu_count() or 1):
        os.environ["OMP_NUM_THREADS"] = str(cores)
    adapts = training and sys.platform == "linux"
    if os.environ.get("OMP_NUM_THREADS") == "1" or user_decided() or adapts or not is_busy():
        return
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
