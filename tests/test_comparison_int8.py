"""A comparison in 8 bits says what each arm loses, as evaluated from its own file, and how fast it is."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from reference.comparison import BASE, squares
from scipy import stats
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.comparison import Report, compare_activations, eight_bits
from yolomish.comparison.eight_bits import calibration_images, measure_eight_bits
from yolomish.comparison.evidence import weigh
from yolomish.comparison.render import to_html, to_latex, to_markdown
from yolomish.comparison.report import Design
from yolomish.comparison.runs import Run
from yolomish.data.datasets import open_data
from yolomish.errors import YolomishError
from yolomish.evaluation.coco import evaluate
from yolomish.evaluation.coco_results import NOTHING, CocoResults
from yolomish.inference.export import int8
from yolomish.networks import find_model

pytestmark = pytest.mark.usefixtures("undrawn")

NEEDED = ("nncf", "openvino", "onnx")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """mish against relu, two seeds of some epochs on squares, with 8 bits."""
    for package in NEEDED:
        pytest.importorskip(package, reason=f"{package} is optional, not installed here")
    root = tmp_path_factory.mktemp("int8")
    tiny = dataclasses.replace(find_model("yolov4-tiny"), width=0.25)
    base = dataclasses.replace(BASE, model=tiny, data=squares(root), epochs=6, burn_in=2, peak_lr=0.02, ema=False, mosaic=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eight_bits, "MOST_ROUNDS", 5)
        return compare_activations(base, ["mish", "relu"], 2, root / "out", int8=True, log=lambda _: None)


def _ap_of_int8(run: Run) -> float:
    """AP of a run's file in 8 bits, evaluated by itself."""
    data = open_data(run.trained().data, "val")
    rows = int8.predict_int8(run.home / "int8-last.xml", data, (64, 64))
    return evaluate(data.coco(), rows, data.names, data.category_ids).values["AP"]


def test_each_arm_has_ap_in_8_bits_as_its_file_finds_and_a_paired_interval(compared: Report) -> None:
    found = compared.eight_bits
    assert found is not None and found.images == 8 and found.rounds >= 5 and "NNCF" in found.by
    for arm, summary in zip(found.arms, compared.arms, strict=True):
        runs = [run for run in compared.runs if run.arm == arm.arm]
        own = []
        for run in runs:
            own.append(_ap_of_int8(run))
        assert arm.int8 == pytest.approx(np.mean(own), abs=1e-9)
        assert arm.fp32 == summary.mean["AP"] == pytest.approx(np.mean([run.metrics["AP"] for run in runs]))
        before = [float(run.metrics["AP"] or 0) for run in runs]
        assert arm.change.per_seed == pytest.approx(tuple(b - a for a, b in zip(before, own, strict=True)))
        assert arm.change.p_t is None or arm.change.p_t == pytest.approx(stats.ttest_rel(own, before).pvalue, nan_ok=True)
        assert arm.speedup[0] <= arm.speedup[1] <= arm.speedup[2] and arm.fp32_ms[1] > 0
        weights = (runs[0].home / "int8-last.bin").stat().st_size
        assert arm.int8_bytes == weights < 0.5 * runs[0].last.stat().st_size
    (pair,) = found.differences
    assert pair.low is not None and (pair.low < pair.mean or len(set(pair.per_seed)) == 1)  # none where all seeds lose alike
    assert pair.mean == pytest.approx(found.arms[0].change.mean - found.arms[1].change.mean)


def test_all_four_reports_hold_8_bits(compared: Report) -> None:
    folder = compared.folder
    found = compared.eight_bits
    assert found is not None
    stated = json.loads((folder / "report.json").read_text())["eight_bits"]
    assert [(arm["arm"], arm["int8"]) for arm in stated["arms"]] == [(arm.arm, arm.int8) for arm in found.arms]
    for text in (to_markdown(compared), to_html(compared), to_latex(compared)):
        assert all(f"{100 * arm.int8:.1f}" in text for arm in found.arms) and "int8 weights" in text
    assert "## In 8 bits" in to_markdown(compared) and "tab:int8" in to_latex(compared) and ">In 8 bits<" in to_html(compared)
    without = dataclasses.replace(compared, eight_bits=None)
    for text in (to_markdown(without), to_html(without), to_latex(without)):
        assert "8 bits" not in text


def test_finished_runs_are_put_into_8_bits_by_the_command_and_only_once(
    compared: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eight_bits, "MOST_ROUNDS", 2)
    folders = [str(run.path) for run in compared.runs if run.seed == 0]
    done = CliRunner().invoke(app, ["compare", *folders, "--int8", "--output", str(tmp_path), "--name", "o"])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "o" / "report.json").read_text())
    assert found["command"].endswith("--int8") and len(found["eight_bits"]["arms"]) == 2
    first = next(run for run in compared.runs if run.seed == 0)
    assert found["eight_bits"]["arms"][0]["int8"] == pytest.approx(_ap_of_int8(first))
    data = open_data(first.trained().data, "val")
    training = calibration_images([first.trained().data], ("square",))
    evidence = weigh({(run.arm, run.seed): NOTHING for run in compared.runs}, data, "detect")
    monkeypatch.setattr(int8, "_by_nncf", None)
    again = measure_eight_bits(compared.runs, data, training, Design(), evidence, lambda _: None)
    assert compared.eight_bits and again.arms[0].int8 == compared.eight_bits.arms[0].int8
    (first.home / "int8-last.bin").rename(tmp_path / "gone")
    with pytest.raises(TypeError):
        measure_eight_bits(compared.runs, data, training, Design(), evidence, lambda _: None)
    (tmp_path / "gone").rename(first.home / "int8-last.bin")


def test_more_loss_is_not_better(compared: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """An arm that finds nothing in 8 bits keeps less than one that is as before."""
    data = open_data(compared.runs[0].trained().data, "val")
    truth = CocoResults.of(a | {"score": 0.9} for a in data.coco().dataset["annotations"])
    evidence = weigh({(run.arm, run.seed): truth for run in compared.runs}, data, "detect")
    monkeypatch.setattr("yolomish.comparison.eight_bits._detections", lambda run, *_: truth if run.arm == "mish" else truth[:1])
    monkeypatch.setattr(eight_bits, "MOST_ROUNDS", 2)
    found = measure_eight_bits(compared.runs, data, data, Design(), evidence, lambda _: None)
    assert [arm.int8 for arm in found.arms] == pytest.approx([1.0, 1 + found.arms[1].change.mean])
    assert found.arms[1].change.mean < -0.5 and found.differences[0].mean > 0.5


def test_what_cannot_be_put_into_8_bits_is_refused_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = dataclasses.replace(BASE, data=squares(tmp_path / "data"))
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(YolomishError, match=r"pip install 'yolomish\[int8\]'"):
        compare_activations(base, ["mish", "relu"], 1, tmp_path / "out", int8=True, log=lambda _: None)
    with pytest.raises(YolomishError, match="--int8 is of detectors"):
        compare_activations(dataclasses.replace(base, task="classify"), ["mish", "relu"], 1, tmp_path / "out", int8=True)
    assert not (tmp_path / "out").exists()
    nowhere = dataclasses.replace(base.data, train="images/none")
    with pytest.raises(YolomishError, match=r"--int8 needs training images.*images/none"):
        calibration_images([nowhere], ("square",))
    assert len(calibration_images([nowhere, base.data], ("square",))) == 8


def test_result_files_have_no_network_for_8_bits(tmp_path: Path) -> None:
    for package in NEEDED:
        pytest.importorskip(package, reason=f"{package} is optional, not installed here")
    squares(tmp_path / "d")
    (tmp_path / "d" / "d.yaml").write_text(
        f"format: yolo\nroot: {tmp_path / 'd'}\ntrain: images/train\nval: images/val\nnames: [square]\n"
    )
    for name in "ab":
        row = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5 + (name == "a")], "score": 0.5}
        (tmp_path / f"{name}.json").write_text(json.dumps([row]))
    words = ["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--data", str(tmp_path / "d" / "d.yaml"), "--int8"]
    done = CliRunner().invoke(app, [*words, "--allow-missing", "--output", str(tmp_path / "out")])
    assert isinstance(done.exception, YolomishError) and "--int8 needs networks" in str(done.exception)
