"""A comparison's trainings as jobs: what a scheduler runs makes the runs that the comparison then takes as its own."""

import dataclasses
import json
import shlex
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from reference.comparison import BASE, squares
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.comparison import compare_activations
from yolomish.comparison.arms import build_arms
from yolomish.comparison.environment import environment
from yolomish.comparison.jobs import Jobs, Planned, Printed, Training
from yolomish.comparison.runs import IDENTITY, State
from yolomish.comparison.train import plan, train
from yolomish.config import TrainConfig
from yolomish.errors import YolomishError


def tiny(root: Path, epochs: int = 1) -> TrainConfig:
    base = dataclasses.replace(BASE, data=squares(root), device="cpu", epochs=epochs)
    return dataclasses.replace(base, model=dataclasses.replace(base.model, num_classes=1))


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


@pytest.mark.slow
def test_a_job_that_is_taken_away_saves_itself_and_goes_on(tmp_path: Path) -> None:
    submitit = pytest.importorskip("submitit")
    runs = plan(build_arms(tiny(tmp_path / "data", epochs=60), ["mish", "relu"])[:1], [0], tmp_path / "out")
    with pytest.raises(Planned):
        train(runs, environment("cpu"), Printed(), print)
    job = Training(str(runs[0].path))
    with ThreadPoolExecutor(1) as pool:
        code = pool.submit(job)
        while not (runs[0].path / "last.pt").exists():
            assert not code.done()
            time.sleep(0.05)
        again = job.checkpoint()  # as submitit does when Slurm takes the machine away
        assert code.result()
    assert runs[0].read().state is State.BEGUN
    assert isinstance(again, submitit.helpers.DelayedSubmission) and again.function.folder == job.folder
    lines: list[str] = []
    done = train(runs, environment("cpu"), Jobs(cluster="local", settings={}, log=lines.append), print)
    assert done[0].state is State.FINISHED and len(done[0].epochs) == 60
    log = next((runs[0].path / "jobs").glob("*_log.err"))
    assert "resuming" in log.read_text() and str(log) in lines[0]


@pytest.mark.slow
def test_a_job_that_fails_is_told_by_its_last_line(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    config = tiny(tmp_path / "data")
    runs = plan(build_arms(config, ["mish", "relu"])[:1], [0], tmp_path / "out")
    (tmp_path / "data" / "images" / "train" / "3.png").write_bytes(b"no picture")
    with pytest.raises(YolomishError, match=r"1 of 1 jobs failed; .* mish, seed 0: .*3\.png"):
        train(runs, environment("cpu"), Jobs(cluster="local", settings={}, log=print), print)


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
