"""A comparison's trainings as jobs: what a scheduler runs makes the runs that the comparison then takes as its own."""

import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from reference.comparison import tiny
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.comparison import compare_activations
from yolomish.comparison.arms import build_arms
from yolomish.comparison.environment import environment
from yolomish.comparison.jobs import Jobs, Planned, Printed
from yolomish.comparison.runs import IDENTITY, Run, State
from yolomish.comparison.train import Here, plan, train
from yolomish.errors import YolomishError

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.mark.slow
def test_printed_commands_make_the_runs_that_the_comparison_takes(tmp_path: Path) -> None:
    base, out = tiny(tmp_path / "data"), tmp_path / "out of the way"
    with pytest.raises(Planned) as found:
        compare_activations(base, ["mish", "relu"], 1, out, trainer=Printed(), log=print)
    before = {act: json.loads((out / f"{act}-seed0" / IDENTITY).read_text()) for act in ("mish", "relu")}
    assert len(found.value.commands) == 2 and not list(out.glob("*/last.pt"))
    for command in found.value.commands:
        *there, yolomish, train_word, option, folder = shlex.split(command)
        assert there == ["cd", str(Path.cwd()), "&&"] and yolomish == "yolomish"
        result = CliRunner().invoke(app, [train_word, option, folder])
        assert result.exit_code == 0, result.output
    assert {act: json.loads((out / f"{act}-seed0" / IDENTITY).read_text()) for act in before} == before
    lines: list[str] = []
    report = compare_activations(base, ["mish", "relu"], 1, out, log=lines.append)
    assert sum("already trained" in line for line in lines) == 2 and report.controlled
    identity = json.loads((out / "mish-seed0" / IDENTITY).read_text())
    identity["ran_on"]["device"] = "NVIDIA of the cluster"
    (out / "mish-seed0" / IDENTITY).write_text(json.dumps(identity))
    taken = train(plan(build_arms(base, ["mish", "relu"]), [0], out), environment("cpu"), Printed(), print)
    assert taken[0].ran_on["device"] == "NVIDIA of the cluster"  # the report says that the devices differ
    identity["ran_on"]["torch"] = "1.0"
    (out / "mish-seed0" / IDENTITY).write_text(json.dumps(identity))
    with pytest.raises(YolomishError, match="other settings, activation code, torch or device"):
        train(plan(build_arms(base, ["mish", "relu"]), [0], out), environment("cpu"), Printed(), print)


def _begun(run: Run, done: Callable[[], bool]) -> None:
    """Return when the run has a checkpoint; fails when it ends before."""
    while not run.last.exists():
        assert not done()
        time.sleep(0.05)


def _weights(run: Run) -> dict[str, torch.Tensor]:
    return torch.load(run.last, weights_only=True)["model"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc to find the job's process")
def test_a_job_that_gets_the_cluster_s_signal_is_requeued_and_goes_on_bit_by_bit(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    runs = plan(build_arms(tiny(tmp_path / "data", epochs=4), ["mish", "relu"])[:1], [0], tmp_path / "out")
    lines: list[str] = []
    jobs = Jobs(cluster="local", settings={}, log=lines.append)
    with ThreadPoolExecutor(1) as pool:
        trained = pool.submit(train, runs, environment("cpu"), jobs, print)
        _begun(runs[0], trained.done)
        controller = re.search(r"job (\d+)", lines[0]).group(1)
        (job,) = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
        os.kill(int(job), signal.SIGUSR2)  # as Slurm does, to the job and not to submitit's controller, which dies of it
        (done,) = trained.result()
    log = next((runs[0].path / "jobs").glob("*_log.err")).read_text()
    assert done.state is State.FINISHED and len(done.epochs) == 4 and str(runs[0].path / "jobs") in lines[0]
    assert re.search(r"Caught signal SIGUSR2[\s\S]*stopped in epoch[\s\S]*resuming", log), log
    whole = plan(build_arms(tiny(tmp_path / "again", epochs=4), ["mish", "relu"])[:1], [0], tmp_path / "whole")
    train(whole, environment("cpu"), Here(devices=(), log=lambda _: None), print)
    ours, theirs = _weights(runs[0]), _weights(whole[0])
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.slow
def test_a_job_trains_with_several_processes(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    runs = plan(build_arms(tiny(tmp_path / "data"), ["mish", "relu"])[:1], [0], tmp_path / "out")
    (done,) = train(runs, environment("cpu"), Jobs(cluster="local", settings={"processes": 2}, log=print), print)
    assert done.state is State.FINISHED and done.ran_on["device"].startswith("2 x ")


def _slurm() -> bool:
    """Whether jobs can be submitted here."""
    if not shutil.which("sbatch") or not shutil.which("sinfo"):
        return False
    return "idle" in subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, timeout=20).stdout


@pytest.mark.slow
@pytest.mark.skipif(not _slurm(), reason="needs a Slurm with an idle node")
def test_slurm_trains_and_a_run_that_it_requeues_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    runs = plan(build_arms(tiny(tmp_path / "data", epochs=30), ["mish", "relu"])[:1], [0], tmp_path / "out")
    lines: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        jobs = Jobs(cluster="slurm", settings={"timeout_min": 10}, log=lines.append)
        trained = pool.submit(train, runs, environment("cpu"), jobs, print)
        _begun(runs[0], trained.done)
        job = re.search(r"job (\d+)", lines[0]).group(1)
        subprocess.run(["scontrol", "requeue", job], check=True)
        while not trained.done():  # Slurm waits for two minutes before it starts a requeued job, unless it is told to
            subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], capture_output=True)
            time.sleep(1)
        (done,) = trained.result()
    log = next((runs[0].path / "jobs").glob("*_log.err")).read_text()
    assert done.state is State.FINISHED and re.search(r"REQUEUE[\s\S]*stopped in epoch[\s\S]*resuming", log), log


INTERRUPTED = """
import sys; from pathlib import Path; sys.path.insert(0, "tests")
from reference.comparison import tiny
from yolomish.comparison.arms import build_arms
from yolomish.comparison.jobs import Jobs
from yolomish.comparison.train import plan, train
runs = plan(build_arms(tiny(Path(sys.argv[1]) / "data", epochs=500), ["mish", "relu"]), [0], Path(sys.argv[1]) / "out")
train(runs, {"yolomish": "", "torch": "", "device": ""}, Jobs(cluster="local", settings={}, log=print), print)
"""


@pytest.mark.slow
def test_an_interrupt_ends_when_the_job_has_saved_itself_and_begins_no_other(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    compared = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)],
        start_new_session=True,
        stderr=(tmp_path / "err").open("w"),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what a shell starts behind itself ignores interrupts
    )
    last = tmp_path / "out" / "mish-seed0" / "last.pt"
    while not last.exists():
        assert compared.poll() is None
        time.sleep(0.05)
    os.killpg(compared.pid, signal.SIGINT)  # as a terminal does: to all of the group
    assert compared.wait(60) and (tmp_path / "err").read_text().endswith("KeyboardInterrupt\n")
    with pytest.raises(ProcessLookupError):
        os.killpg(compared.pid, 0)
    log = next(last.parent.glob("jobs/*_log.err")).read_text()
    assert "stopped in epoch" in log and "go on with: yolomish train --resume" in log
    assert not (tmp_path / "out" / "relu-seed0" / "jobs").exists()


@pytest.mark.slow
def test_a_job_that_fails_is_told_by_its_last_line(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    config = tiny(tmp_path / "data")
    runs = plan(build_arms(config, ["mish", "relu"])[:1], [0], tmp_path / "out")
    (tmp_path / "data" / "images" / "train" / "3.png").write_bytes(b"no picture")
    with pytest.raises(YolomishError, match=r"1 of 1 jobs failed; .* mish, seed 0: .*3\.png"):
        train(runs, environment("cpu"), Jobs(cluster="local", settings={}, log=print), print)


def test_a_run_that_computed_in_another_precision_is_another_run(tmp_path: Path) -> None:
    base = dataclasses.replace(tiny(tmp_path / "data"), amp="bf16")
    (run,) = plan(build_arms(base, ["mish", "relu"])[:1], [0], tmp_path / "out")
    with pytest.raises(Planned):
        train([run], environment("cpu"), Printed(), print)
    run.last.write_bytes(b"")
    identity = json.loads((run.path / IDENTITY).read_text())
    del identity["elsewhere"]
    (run.path / IDENTITY).write_text(json.dumps(identity))
    with pytest.raises(Planned):  # to go on with it
        train([run], environment("cpu"), Printed(), print)
    assert identity["ran_on"].pop("precision") == "bfloat16"  # as written before CPUs computed in it
    identity.pop("elsewhere", None)
    (run.path / IDENTITY).write_text(json.dumps(identity))
    with pytest.raises(YolomishError, match="other settings, activation code, torch or device"):
        train([run], environment("cpu"), Printed(), print)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--jobs", "slrm"], "unknown --jobs 'slrm'; did you mean 'slurm'"),
        (["--jobs", "local", "--devices", "cpu,cpu"], "give one of them"),
        (["--jobs", "local", "--print-jobs"], "give one of them"),
        (["--job-set", "timeout_min=3"], "--job-set needs KEY=VALUE of a job, and --jobs"),
        (["--jobs", "local"], r"pip install 'yolomish[cluster]'"),
    ],
)
def test_what_does_not_start_jobs_is_one_line(words: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    result = CliRunner().invoke(app, ["compare", "--acts", "mish,relu", *words])
    assert isinstance(result.exception, YolomishError) or result.exit_code
    assert said in " ".join(str(result.exception).split())


def test_a_setting_that_a_cluster_does_not_have_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    runs = plan(build_arms(tiny(tmp_path / "data"), ["mish", "relu"])[:1], [0], tmp_path)
    with pytest.raises(YolomishError, match=r"--jobs local does not start mish, seed 0: .*slurm_moon"):
        Jobs(cluster="local", settings={"slurm_moon": 1, "moon": 2}, log=print)(runs)
    with pytest.raises(YolomishError, match='does not start mish, seed 0: Parameter "timeout_min" expected type'):
        Jobs(cluster="local", settings={"timeout_min": "x"}, log=print)(runs)
    with pytest.raises(YolomishError, match="processes must be a whole number from 1, not '0'"):
        Jobs(cluster="local", settings={"processes": 0}, log=print)(runs)
