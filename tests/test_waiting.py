"""Threads sleep while they wait as long as steps are the quicker for it, and no bit changes."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from processes import Started

from yolomish.training import waiting
from yolomish.training.waiting import Sleepers, Waiting, busy_seconds

pytestmark = pytest.mark.skipif(
    not waiting.STAT.is_file() or (os.cpu_count() or 1) < 2, reason="needs Linux's /proc and two cores"
)


def spin_and_sleep() -> None:
    """In a process of two threads: what they spin between short pieces of work, as OpenMP comes and with idle threads beside."""
    torch.set_num_threads(2)
    sleepers, x, w = Sleepers(), torch.rand(1 << 18), torch.rand(1, 8, 64, 64)
    used, sums, there = [], [], []
    x.exp()
    for idle in (False, True, False):
        sleepers.set(idle)
        time.sleep(0.3)  # they end by themselves
        there.append(len(list(Path("/proc/self/task").iterdir())))
        x.exp()  # all threads have worked
        began = time.process_time()
        for _ in range(150):
            x.mul_(1.0)
            time.sleep(0.001)
        used.append(time.process_time() - began)
        sums.append(torch.nn.functional.conv2d(w, torch.ones(8, 8, 3, 3) / 3))
    assert used[1] < 0.6 * min(used[0], used[2]), used
    assert torch.equal(sums[0], sums[1]) and torch.get_num_threads() == 2
    assert there[0] == there[2] == there[1] - 2, there


def test_idle_threads_beside_keep_the_others_from_spinning_and_are_gone_again(tmp_path: Path) -> None:
    try:
        Sleepers()
    except OSError as missing:
        pytest.skip(str(missing))
    environment = {"OMP_NUM_THREADS": "2"}
    assert Started(tmp_path / "errors.txt", spin_and_sleep, environment=environment).wait() == 0


class Machine:
    """A clock, what others take of it, and steps that take longer where threads wait in the wrong way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.others, self.load, self.changes, self.said = 100.0, 0.0, 0.0, [], []
        self.spinning, self.sleeping = 0.2, 0.3
        monkeypatch.setattr(waiting.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(waiting, "busy_seconds", lambda: self.others)
        monkeypatch.setattr(waiting, "Sleepers", lambda: self)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
        monkeypatch.setattr(waiting, "user_decided", lambda: False)
        self.asleep = False
        self.waiting = Waiting(torch.device("cpu"), self.said.append)

    def __bool__(self) -> bool:
        return self.asleep

    def set(self, there: bool) -> None:
        if there != self.asleep:
            self.changes.append(self.now)
        self.asleep = there

    def run(self, seconds: float) -> float:
        """The share of the steps of so many seconds in which threads slept."""
        end, slept, steps = self.now + seconds, 0, 0
        while self.now < end:
            step = self.sleeping if self.asleep else self.spinning
            slept, steps = slept + self.asleep, steps + 1
            self.now += step
            self.others += step * self.load
            self.waiting.step(step)
        return slept / steps


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    yield Machine(monkeypatch)


def test_threads_spin_on_a_quiet_machine_and_sleep_as_long_as_others_make_that_better(machine: Machine) -> None:
    assert machine.run(300) == 0 and not machine.changes
    machine.load, machine.spinning, machine.sleeping = 1.5, 2.0, 0.5
    machine.run(15)
    assert machine.asleep and len(machine.said) == 1 and "keep this machine busy" in machine.said[0]
    assert machine.run(600) > 0.95  # now and then spinning is tried again
    machine.load, machine.spinning, machine.sleeping = 0.0, 0.2, 0.3
    machine.run(5)
    assert not machine.asleep and machine.run(300) == 0 and len(machine.said) == 1


def test_a_load_that_does_no_harm_costs_a_trial_now_and_then(machine: Machine) -> None:
    machine.load = 0.4  # as the processes that load images
    assert 0 < machine.run(600) < 0.02 and not machine.said
    machine.load, machine.spinning = 1.5, 2.0  # more of it, right after a trial
    machine.run(12)
    assert machine.asleep
    machine.load, machine.spinning, machine.sleeping = 0.4, 0.2, 0.22
    machine.run(12)
    assert not machine.asleep
    machine.asleep = True
    machine.waiting.close()
    assert not machine.asleep


def test_nothing_is_done_on_a_gpu_with_one_thread_or_where_the_user_has_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "Sleepers", lambda: pytest.fail("not to be made"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    Waiting(torch.device("cpu"), print).step(1.0)
    monkeypatch.delenv("GOMP_SPINCOUNT")
    Waiting(torch.device("cuda"), print).step(1.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    Waiting(torch.device("cpu"), print).step(1.0)


def test_what_others_take_is_the_cores_time_without_ours() -> None:
    before, began = busy_seconds(), time.monotonic()
    while time.monotonic() - began < 0.5:
        pass
    assert -0.1 < busy_seconds() - before < 0.5 * (os.cpu_count() or 1) + 0.1


def test_a_training_on_linux_adapts_and_does_not_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    from yolomish import threads

    for name in (*threads.OURS, "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "getloadavg", lambda: (50.0, 0.0, 0.0))
    monkeypatch.setattr(threads.sys, "platform", "linux")
    threads.settle_threads(training=True)
    assert not threads.waits_passively() and threads.busy_note(training=True).endswith("timings will be unsteady")
    monkeypatch.setattr(threads.sys, "platform", "darwin")
    threads.settle_threads(training=True)
    assert threads.waits_passively()
