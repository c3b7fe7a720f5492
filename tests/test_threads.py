"""Threads take the share of the machine that there is, and wait as its load asks for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from yolomish import threads
from yolomish.inference.engines.onnxruntime_engine import OnnxRuntimeEngine


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A quiet machine of eight cores without settings."""
    for name in (*threads.OURS, "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # so that what is set in a test is taken back
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.3, 9.0, 9.0), raising=False)
    monkeypatch.setattr(threads, "QUOTA", tmp_path / "cpu.max")
    return monkeypatch


def test_a_quiet_machine_is_left_as_it_is(machine: pytest.MonkeyPatch) -> None:
    threads.settle_threads()
    assert not {*threads.OURS, "OMP_NUM_THREADS"} & set(os.environ) and not threads.busy_note()


def test_threads_sleep_where_others_are_busy_unless_the_user_has_decided(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(os, "getloadavg", lambda: (5.0, 0.0, 0.0))
    machine.setenv("GOMP_SPINCOUNT", "7")
    threads.settle_threads()
    assert not threads.waits_passively() and "spin (OMP_WAIT_POLICY=PASSIVE" in threads.busy_note()
    machine.delenv("GOMP_SPINCOUNT")
    threads.settle_threads()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE" and "threads sleep" in threads.busy_note()
    machine.setenv("OMP_NUM_THREADS", "1")
    assert threads.busy_note().endswith("timings will be unsteady")


@pytest.mark.parametrize(("quota", "cores"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 8), ("x", 8)])
def test_a_containers_quota_and_the_affinity_bound_the_threads(machine: pytest.MonkeyPatch, quota: str, cores: int) -> None:
    threads.QUOTA.write_text(quota)
    assert threads.usable_cores() == cores
    machine.setattr(os, "sched_getaffinity", lambda _: {3})
    threads.settle_threads()
    assert threads.usable_cores() == 1 and os.environ["OMP_NUM_THREADS"] == "1"
    machine.setenv("OMP_NUM_THREADS", "5")
    threads.settle_threads()
    assert os.environ["OMP_NUM_THREADS"] == "5"


def test_training_comparing_and_detecting_do_without_torchvision_until_it_is_needed() -> None:
    """It takes longer to import than torch itself."""
    code = (
        "import sys; import yolomish.commands, yolomish.comparison, yolomish.inference.detector, yolomish.training.loop;"
        "print([name for name in ('torch', 'torchvision') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['torch']\n"


def test_torch_is_loaded_after_the_threads_are_settled() -> None:
    code = (
        "import atexit, os, sys; from yolomish import threads; from yolomish.commands import main;"
        "os.cpu_count = lambda: 8; threads.usable_cores = lambda: 1; sys.argv = ['yolomish', 'acts'];"
        "atexit.register(lambda: print(os.environ['OMP_NUM_THREADS'], __import__('torch').get_num_threads())); main()"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP", "MKL"))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "1 1"


def test_onnx_runtime_sleeps_too(monkeypatch: pytest.MonkeyPatch) -> None:
    ort = pytest.importorskip("onnxruntime")
    import torch

    taken = []
    monkeypatch.setattr(ort, "InferenceSession", lambda source, options, **_: taken.append(options))
    for policy in ("active", "passive"):
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
        OnnxRuntimeEngine(b"", device=torch.device("cpu"))
    assert taken[1].get_session_config_entry("session.intra_op.allow_spinning") == "0"
    with pytest.raises(RuntimeError):
        taken[0].get_session_config_entry("session.intra_op.allow_spinning")
