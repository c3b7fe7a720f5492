"""Runs are trained, kept, stopped, read and paired as their folders say, wherever they came from."""

import dataclasses
import json
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import pytest
from reference.comparison import BASE, run_folder, squares
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.comparison import Report, compare_activations, compare_finished, evidence, train
from yolomish.comparison.arms import build_arms, difference_table
from yolomish.comparison.given import group, pair, read_given
from yolomish.comparison.render import declared, headline, left_out, limits
from yolomish.comparison.report import InitialWeights, Pairing
from yolomish.comparison.runs import IDENTITY, Run, Start, State, read_run, recorded_start
from yolomish.config import DataConfig, TrainConfig, save_yaml, to_dict
from yolomish.data.datasets import open_data
from yolomish.errors import YolomishError
from yolomish.evaluation.coco_results import CocoResults
from yolomish.evaluation.stats import Verdict
from yolomish.tasks.detection import task as detection
from yolomish.training import build
from yolomish.training.loop import Terminated, fit

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and runs/mish-seed0, runs/relu-seed0 trained on it."""
    root = tmp_path_factory.mktemp("trained")
    base = dataclasses.replace(BASE, data=squares(root / "data"), device="cpu")
    compare_activations(base, ["mish", "relu"], 1, root / "runs", log=lambda _: None)
    return root


def _copy(trained: Path, to: Path) -> tuple[list[str], DataConfig]:
    """Its runs and data, copied so that a test may change them."""
    shutil.copytree(trained, to, dirs_exist_ok=True)
    runs = [to / "runs" / f"{act}-seed0" for act in ("mish", "relu")]
    data = dataclasses.replace(read_run(runs[0]).trained().data, root=str(to / "data"))
    for run in runs:
        config = dataclasses.replace(read_run(run).trained(), data=data)
        save_yaml(config, run / "config.yaml")
    return [str(run) for run in runs], data


def _planned(path: Path, config: TrainConfig = BASE) -> Run:
    path.mkdir(parents=True)
    (path / IDENTITY).write_text(json.dumps({"config": to_dict(config)}))
    return Run(arm=path.name, seed=0, path=path, home=path, state=State.PLANNED, config=config)


STUB = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def stop(*_):
    (folder / "saved").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
(folder / "began").write_text(os.environ["YOLOMISH_WORKER_DEVICE"])
print("working", flush=True)
if folder.name == "fails":
    while not (folder.parent / "slow" / "began").exists():
        time.sleep(0.02)
    print("out of luck", flush=True)
    sys.exit(3)
if folder.name == "slow":
    time.sleep(120)
"""


def test_the_first_failure_stops_the_other_runs_at_once(tmp_path: Path) -> None:
    runs = [_planned(tmp_path / name) for name in ("slow", "fails", "waits")]
    lines: list[str] = []
    began = time.monotonic()
    with pytest.raises(YolomishError, match=r"^fails, seed 0 on b stopped with code 3: out of luck$"):
        train.train_all(runs, ("a", "b"), lines.append, worker=(sys.executable, "-c", STUB))
    assert time.monotonic() - began < 60
    assert (tmp_path / "slow" / "saved").exists() and not (tmp_path / "waits" / "began").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to hand on")
def test_sigterm_stops_the_runs_on_all_devices(tmp_path: Path) -> None:
    runs = [_planned(tmp_path / name) for name in ("slow", "x")]

    def when_slow_began(text: str) -> None:
        if "slow" in text and "working" in text:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Terminated):
        train.train_all(runs, ("a", "b"), when_slow_began, worker=(sys.executable, "-c", STUB))
    assert (tmp_path / "slow" / "saved").exists() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize(
    "row", [{"bbox": None}, {"category_id": [1]}, {"bbox": ["a", 0, 1, 1]}, {"score": None}, {"bbox": [1, 2, 3]}]
)
def test_a_row_that_is_no_result_is_one_line(tmp_path: Path, row: dict) -> None:
    data = open_data(squares(tmp_path / "data"), "val")
    file = tmp_path / "results.json"
    good = {"image_id": data.image_ids[0], "category_id": data.category_ids[0], "bbox": [1, 1, 5, 5], "score": 0.5}
    file.write_text(json.dumps([good]))
    assert list(evidence.read_results(file, data).detections) == [good]
    file.write_text(json.dumps([good | row]))
    with pytest.raises(YolomishError, match=r"1 of 1 entries are no COCO results \(the first: entry 0"):
        evidence.read_results(file, data)


def test_the_command_in_a_report_repeats_the_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[str], str, str]] = []

    def compared(base: TrainConfig, names: list[str], *_: object, scope: str, command: str, **__: object) -> None:
        asked.append((names, scope, command))
        raise YolomishError("enough")

    monkeypatch.setattr("yolomish.comparison.compare_activations", compared)
    CliRunner().invoke(app, ["compare", "--scope", "leaky_relu=mish", "--batch", "4", "--recipe", "darknet"])
    CliRunner().invoke(app, shlex.split(asked[0][2])[1:])
    assert asked[0][:2] == asked[1][:2] == (["leaky_relu", "mish"], "leaky_relu")


def test_runs_on_one_cpu_train_side_by_side_and_share_its_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yolomish.comparison.train.usable_cores", lambda: 2)
    assert [train.side_by_side(n, "cpu") for n in (1, 2, 6)] == [("cpu",), ("cpu", "cpu"), ("cpu", "cpu")]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert train.side_by_side(6, "auto") == ("cuda",)
    worker = (sys.executable, "-c", "import os; print('threads', os.environ.get('OMP_NUM_THREADS'))")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    for threads, share in ((8, 4), (3, 1), (1, 1)):
        monkeypatch.setattr("torch.get_num_threads", lambda threads=threads: threads)
        lines: list[str] = []
        train.train_all([_planned(tmp_path / f"{threads}")], ("cpu", "cpu"), lines.append, worker=worker)
        assert lines[-1].endswith(f"] threads {share}")
    train.train_all([_planned(tmp_path / "gpu")], ("cuda:0", "cuda:1"), lines.append, worker=worker)
    assert lines[-1].endswith("] threads 5")


def test_every_run_is_trained_on_a_device_of_its_own(tmp_path: Path) -> None:
    runs = [_planned(tmp_path / name) for name in ("x", "y", "z")]
    lines: list[str] = []
    train.train_all(runs, ("a", "b"), lines.append, worker=(sys.executable, "-c", STUB))
    assert {(run.path / "began").read_text() for run in runs} <= {"a", "b"}
    assert {f"[{run.arm}, seed 0] working" for run in runs} <= set(lines)


def test_a_comparison_resumed_keeps_the_mini_batch_that_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = dataclasses.replace(BASE, data=squares(tmp_path / "data"), device="cpu", epochs=2, mini_batch=-1)

    def stop(line: str) -> None:
        if line.startswith("epoch 1/2"):
            raise KeyboardInterrupt

    monkeypatch.setattr(build, "_mini_batch_by_memory", lambda *_: 2)
    with pytest.raises(KeyboardInterrupt):
        compare_activations(base, ["mish", "mish"], 1, tmp_path / "out", log=stop)
    monkeypatch.setattr(build, "_mini_batch_by_memory", lambda *_: 4)
    report = compare_activations(base, ["mish", "mish"], 1, tmp_path / "out", log=lambda _: None)
    assert [run.trained().mini_batch for run in report.runs] == [2, 4] and report.other_settings == ("mini_batch",)


def test_a_run_folder_is_read_and_an_unfinished_one_refused(tmp_path: Path) -> None:
    config = dataclasses.replace(BASE, epochs=3)
    run = read_run(run_folder(tmp_path / "a", config, 3))
    assert run.config == config and run.epochs[-1].ap == 0.2 and run.epochs[0].loss is None and run.step_ms is None
    assert run.best_point.epoch == 3
    with pytest.raises(YolomishError, match="2 of 3 epochs"):
        read_run(run_folder(tmp_path / "b", config, 2))
    text = (tmp_path / "a" / "config.yaml").read_text()
    (tmp_path / "a" / "config.yaml").write_text(text.replace("cache: 'off'\n", "").replace("mixup: 0.0\n", ""))
    assert read_run(tmp_path / "a").config == config  # written before these settings existed


def test_finished_runs_become_arms_by_what_they_hold(tmp_path: Path) -> None:
    a, b = build_arms(BASE, ["mish", "relu"])
    for arm in (a, b):
        for seed in (0, 1):
            run_folder(tmp_path / "runs" / f"{arm.slug}{seed}", dataclasses.replace(arm.seeded(seed), workers=seed), 1)
    arms = group(read_given([str(tmp_path / "runs")]))
    assert {k: [run.config.seed for run in v] for k, v in arms.items()} == {"mish": [0, 1], "relu": [0, 1]}
    other = dataclasses.replace(b.seeded(0), peak_lr=0.5)
    run_folder(tmp_path / "other", other, 1)
    arms = group(read_given([str(tmp_path / "runs"), str(tmp_path / "other")]))
    assert len(arms) == 3 and "peak_lr" in difference_table([v[0].config for v in arms.values()])
    for wrong, words in (([str(tmp_path / "no")], "neither a run folder"), ([str(tmp_path / "other")], "nothing to compare")):
        with pytest.raises(YolomishError, match=words):
            read_given(wrong)


@pytest.mark.slow
def test_arms_train_at_once_on_several_devices_and_a_failure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as many as here: sums round alike
    base = dataclasses.replace(BASE, data=squares(tmp_path / "data"))
    lines: list[str] = []
    both = compare_activations(base, ["mish", "relu"], 1, tmp_path / "two", devices=("cpu", "cpu"), log=lines.append)
    assert sum("on cpu ->" in line for line in lines) == 2 and "at once" in both.design.environment["trained on"]
    fit(dataclasses.replace(read_run(tmp_path / "two" / "mish-seed0").config, device="cpu"), tmp_path / "alone", log=lines.append)
    assert read_run(tmp_path / "alone").epochs == both.runs[0].epochs
    assert json.loads((tmp_path / "two" / "mish-seed0" / IDENTITY).read_text())["config"]["model"]["activation"] == "mish"
    broken = dataclasses.replace(base, data=DataConfig(format="coco", root=str(tmp_path / "none")))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / IDENTITY).write_text(json.dumps({"config": to_dict(broken)}))
    run = Run(arm="broken", seed=0, path=tmp_path / "broken", home=tmp_path, state=State.PLANNED, config=broken)
    with pytest.raises(YolomishError, match=r"broken, seed 0 on cpu stopped with code 2: yolomish: .*none"):
        train.train_all([run], ("cpu", "cpu"), lines.append)


def test_bare_result_files_are_compared(tmp_path: Path) -> None:
    config = squares(tmp_path / "data")
    box = [4.0, 4.0, 30.0, 30.0]
    for name, shift in (("a", 0), ("b", 200)):
        rows = [{"image_id": i, "category_id": 1, "bbox": [box[0] + shift, *box[1:]], "score": 0.9} for i in (1, 2, 3, 4)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    files = [f"one={tmp_path / 'a.json'}", f"two={tmp_path / 'b.json'}"]
    report = compare_finished(files, tmp_path / "out", data=config, log=lambda _: None)
    assert report.primary[0].verdict is Verdict.ONE_SEED and report.arms[0].label == "one" and report.arms[1].mean["AP"] == 0
    assert any("bare detections" in line for line in declared(report)) and (tmp_path / "out" / "report.html").is_file()
    with pytest.raises(YolomishError, match="--data"):
        compare_finished(files, tmp_path / "out", log=lambda _: None)
    (tmp_path / "a.json").write_text(json.dumps([{"image_id": 1}]))
    with pytest.raises(YolomishError, match=r"1 of 1 entries are no COCO results \(the first: entry 0"):
        compare_finished(files, tmp_path / "out", data=config, log=lambda _: None)
    (tmp_path / "a.json").write_text(json.dumps([{"image_id": 1, "category_id": 77, "bbox": box, "score": 1}]))
    with pytest.raises(YolomishError, match="none of its category ids"):
        compare_finished(files, tmp_path / "out", data=config, log=lambda _: None)


def test_the_command_prints_the_summary_of_what_it_found(tmp_path: Path) -> None:
    data = squares(tmp_path / "data")
    save_yaml(data, tmp_path / "data.yaml")
    rows = [{"image_id": i, "category_id": 1, "bbox": [4.0, 4.0, 30.0, 30.0], "score": 0.9} for i in (1, 2, 3, 4)]
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    words = ["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--data", str(tmp_path / "data.yaml")]
    result = CliRunner().invoke(app, [*words, "--output", str(tmp_path), "--name", "out"])
    assert result.exit_code == 0, result.output
    markdown = (tmp_path / "out" / "report.md").read_text()
    printed = result.stdout.split("\nwrote ")[0].strip()
    assert markdown.startswith(printed) and printed.count("\n## ") == 2 and "## Differences" in printed


def test_arms_are_paired_by_seed_or_not_at_all(tmp_path: Path) -> None:
    def runs(arm: str, seeds: list[int]) -> list[Run]:
        return [
            Run(arm=arm, seed=seed, path=Path(f"{arm}{seed}"), home=tmp_path, state=State.FINISHED, config=BASE) for seed in seeds
        ]

    arms, design = pair({"a": runs("a", [3, 1, 2]), "b": runs("b", [2, 3])})
    assert design.pairing is Pairing.BY_SEED and design.left_out == {"a": (1,)}
    assert {label: [run.path.name for run in found] for label, found in arms.items()} == {"a": ["a2", "a3"], "b": ["b2", "b3"]}
    assert left_out(design) == ["Left out of a: seed 1, which another arm lacks."]
    arms, design = pair({"a": runs("a", [3, 1, 2]), "b": runs("b", [5, 4])})
    assert design.pairing is Pairing.NONE and not design.left_out  # nothing is thrown away
    numbered = [(run.seed, run.path.name) for run in arms["a"] + arms["b"]]
    assert numbered == [(0, "a3"), (1, "a1"), (2, "a2"), (0, "b5"), (1, "b4")]


def _forget_start(folder: Path) -> None:
    """Make a run's configuration like those written before it recorded initial weights."""
    lines = (folder / "config.yaml").read_text().splitlines(keepends=True)
    (folder / "config.yaml").write_text("".join(line for line in lines if not line.startswith("initial_weights")))


def test_a_run_says_what_it_started_from_as_far_as_it_is_recorded(tmp_path: Path) -> None:
    config = dataclasses.replace(BASE, initial_weights="n.pt", initial_weights_sha256="def")
    folder = run_folder(tmp_path / "run", config, 1)
    assert recorded_start(folder) == Start(weights="n.pt", sha256="def")
    _forget_start(folder)
    assert recorded_start(folder) == Start(weights=None)
    (folder / IDENTITY).write_text(json.dumps({"config": to_dict(BASE)}))
    assert recorded_start(folder) == Start(weights="")
    (folder / IDENTITY).write_text(json.dumps({"config": to_dict(BASE), "weights": "m.pt", "weights_sha256": "abc"}))
    assert recorded_start(folder) == Start(weights="m.pt", sha256="abc")


def _compared(runs: list[str], out_dir: Path, starts: Sequence[tuple[str, str]]) -> tuple[Report, str]:
    """The report of runs that record these initial weights and digests (none: record nothing), and all that it says."""
    for run, (weights, sha256) in zip(map(Path, runs), starts, strict=True):
        config = dataclasses.replace(read_run(run).trained(), initial_weights=weights, initial_weights_sha256=sha256)
        save_yaml(config, run / "config.yaml")
    report = compare_finished(runs, out_dir, log=lambda _: None)
    return report, " ".join([headline(report), *declared(report), *limits(report)])


def test_a_report_claims_no_initial_weights_but_those_recorded(trained: Path, tmp_path: Path) -> None:
    runs, _ = _copy(trained, tmp_path)
    report, text = _compared(runs, tmp_path / "random", [("", ""), ("", "")])
    assert report.initial_weights is InitialWeights.RANDOM and "from random weights" in text and report.controlled
    report, text = _compared(runs, tmp_path / "file", [("m.pt", "abc"), ("copy/m.pt", "abc")])
    assert report.initial_weights is InitialWeights.ONE_FILE and not report.controlled
    assert text.startswith("NOT CONTROLLED (all arms start from m.pt") and "random" not in text
    latex = (tmp_path / "file" / "report.tex").read_text()
    assert "NOT CONTROLLED (all arms start from m.pt" in latex and "All arms start from m.pt" in latex
    report, text = _compared(runs, tmp_path / "own", [("m.pt", "abc"), ("n.pt", "def")])
    assert report.initial_weights is InitialWeights.OWN and report.other_starts == (0,)
    assert text.startswith("NOT CONTROLLED (initial kernels at seed 0)") and "mish from m.pt, relu from n.pt" in text
    for run in map(Path, runs):
        _forget_start(run)
        (run / IDENTITY).unlink()
    report = compare_finished(runs, tmp_path / "silent", log=lambda _: None)
    text = " ".join([headline(report), *declared(report), *limits(report)])
    assert report.initial_weights is InitialWeights.UNKNOWN and "random" not in text and report.controlled
    assert "What mish and relu started from is not recorded." in text


def test_runs_trained_elsewhere_are_compared_without_their_training_images(trained: Path, tmp_path: Path) -> None:
    runs, data = _copy(trained, tmp_path)
    moved = dataclasses.replace(data, root=str(tmp_path / "moved"))
    (tmp_path / "data").rename(tmp_path / "moved")
    whole = compare_finished(runs, tmp_path / "whole", data=moved, log=lambda _: None)
    assert whole.layers and not whole.missing
    shutil.rmtree(tmp_path / "moved" / "images" / "train")
    lines: list[str] = []
    report = compare_finished(runs, tmp_path / "out", data=moved, log=lines.append)
    assert not report.layers and "images/train" in report.missing["layers"] and report.missing["layers"] in lines[0]
    assert f"Not measured: {report.missing['layers']}." in (tmp_path / "out" / "report.html").read_text()
    assert report.differences == whole.differences


def test_what_cannot_be_compared_is_refused_before_any_detection(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection, "predict", lambda *_, **__: pytest.fail("detected"))
    runs, data = _copy(trained, tmp_path)
    with pytest.raises(YolomishError, match=r"has boxes of circle, and .*mish-seed0 has no such class but square"):
        compare_finished(runs, tmp_path / "out", data=dataclasses.replace(data, names=("circle",)), log=lambda _: None)
    (tmp_path / "b.json").write_text(json.dumps([{"image_id": 1}]))
    with pytest.raises(YolomishError, match=r"1 of 1 entries are no COCO results \(the first: entry 0"):
        compare_finished([f"a={runs[0]}", f"b={tmp_path / 'b.json'}"], tmp_path / "out", log=lambda _: None)
    crowd = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 4, 30, 30], "area": 900, "iscrowd": 1}
    image = {"id": 1, "file_name": "0.png", "width": 64, "height": 64}
    content = {"images": [image], "categories": [{"id": 1, "name": "square"}], "annotations": [crowd]}
    (tmp_path / "crowds.json").write_text(json.dumps(content))
    crowds = DataConfig(format="coco", root=str(tmp_path), val="crowds.json", val_images="data/images/val")
    with pytest.raises(YolomishError, match="holds no boxes"):
        compare_finished(runs, tmp_path / "out", data=crowds, log=lambda _: None)
    for label in (tmp_path / "data" / "labels" / "val").iterdir():
        label.write_text("")
    with pytest.raises(YolomishError, match="not one box in 4 images"):
        compare_finished(runs, tmp_path / "out", log=lambda _: None)


def test_kept_detections_are_those_of_the_same_weights_images_and_protocol(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    predict = detection.predict

    def counted(*args: Any, **kwargs: Any) -> CocoResults:
        made.append(1)
        return predict(*args, **kwargs)

    monkeypatch.setattr(detection, "predict", counted)
    runs, config = _copy(trained, tmp_path)
    run = read_run(Path(runs[0]))

    def detects() -> bool:
        made.clear()
        data = open_data(config, "val")
        evidence.predictions(run, data, content=evidence.data_digest(data), device="cpu")
        return bool(made)

    assert not detects()  # moved with its data, sizes and times kept
    image = tmp_path / "data" / "images" / "val" / "0.png"
    cv2.imwrite(str(image), 255 - cv2.imread(str(image)))
    assert detects() and not detects()
    (tmp_path / "data" / "labels" / "val" / "0.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    assert detects() and not detects()
    run.last.write_bytes((Path(runs[1]) / "last.pt").read_bytes())
    assert detects() and not detects()
    protocol = evidence.protocol_of(BASE)
    monkeypatch.setattr(evidence, "protocol_of", lambda _: dataclasses.replace(protocol, interpolation="area"))
    assert detects() and not detects()
