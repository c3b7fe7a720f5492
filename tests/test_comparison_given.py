"""No comparison is fooled by what it is given, and it says how often it was looked at and what to do next."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from reference.comparison import BASE, run_folder, squares
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.comparison import compare, compare_activations, compare_finished, evidence
from yolomish.comparison.arms import build_arms
from yolomish.comparison.given import prepare
from yolomish.comparison.looks import declared_looks, read_looks, take_look
from yolomish.comparison.render import badges, declared, headline, next_steps, write_report
from yolomish.comparison.report import Design, Judging, Look, Report
from yolomish.config import DataConfig, save_yaml
from yolomish.errors import YolomishError
from yolomish.evaluation.sequential import t_levels
from yolomish.evaluation.stats import Equality, Verdict

pytestmark = pytest.mark.usefixtures("undrawn")


def _files(folder: Path, **shifts: list[float]) -> tuple[list[str], DataConfig]:
    """``ARM=FILE`` for each shift of all boxes in px, on the pictures of ``squares``; distinct by their scores."""
    data = squares(folder / "data")
    names = []
    for arm, of_arm in shifts.items():
        for k, shift in enumerate(of_arm):
            rows = [
                {"image_id": i, "category_id": 1, "bbox": [4.0 + shift, 4.0, 30.0, 30.0], "score": 0.9 - k / 100}
                for i in (1, 2, 3, 4)
            ]
            file = folder / f"{arm}{k}.json"
            file.write_text(json.dumps(rows))
            names.append(f"{arm}={file}")
    return names, data


def _compared(names: list[str], data: DataConfig, folder: Path, **judging: Any) -> Report:
    return compare_finished(names, folder / "out", data=data, judging=Judging(**judging), log=lambda _: None)


def test_a_file_given_twice_is_no_second_seed(tmp_path: Path) -> None:
    names, data = _files(tmp_path, a=[0, 1], b=[2, 3])
    shutil.copy(tmp_path / "a0.json", tmp_path / "copy.json")
    for again, what in ((names[0], "the path"), (f"a={tmp_path / 'copy.json'}", "the content")):
        with pytest.raises(YolomishError, match=f"arm 'a' holds one training twice, by {what}"):
            _compared([*names, again], data, tmp_path)
    assert "2 files per arm (not paired) and 4 images" in headline(_compared(names, data, tmp_path))


def _runs(folder: Path, *configs: Any) -> list[str]:
    """Run folders with distinct, unreadable checkpoints: nothing may be detected with them."""
    found = []
    for i, config in enumerate(configs):
        run = run_folder(folder / f"run{i}", config, 1)
        (run / "last.pt").write_text(str(i))
        found.append(str(run))
    return found


def test_runs_that_would_fool_are_refused_before_any_detection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "read_checkpoint", lambda _: {"names": BASE_NAMES})  # of files that hold nothing
    data = squares(tmp_path / "data")
    mish, relu = build_arms(dataclasses.replace(BASE, data=data), ["mish", "relu"])

    def refused(words: str, *texts: str, truth: DataConfig | None = None) -> None:
        with pytest.raises(YolomishError, match=words):
            prepare(texts, tmp_path / "out", truth, Judging(), lambda _: None)

    runs = _runs(tmp_path / "seeds", mish.seeded(0), mish.seeded(0), relu.seeded(0), relu.seeded(1))
    refused("arm 'mish' holds one training twice, by the seed", *runs)
    refused("arm 'A' mixes configurations: .*model.activation .'mish' and 'relu'", f"A={runs[0]}", f"A={runs[3]}", f"B={runs[2]}")
    file = tmp_path / "x.json"
    file.write_text("[]")
    refused("arm 'A' mixes run folders and result files", f"A={runs[0]}", f"A={file}", f"B={runs[2]}")
    other = dataclasses.replace(relu.seeded(0), data=squares(tmp_path / "other"))
    moved = _runs(tmp_path / "moved", mish.seeded(0), other)
    refused(r"trained on different data \(mish on yolo \S+data .*relu on yolo \S+other", *moved)
    seen, _, design = prepare(moved, tmp_path / "out", dataclasses.replace(data, names=BASE_NAMES), Judging(), lambda _: None)
    assert len(seen) == 2 and set(design.trained_on) == {"mish", "relu"} and "other" in design.trained_on["relu"]


BASE_NAMES = tuple(f"class{i}" for i in range(BASE.model.num_classes))


def test_a_file_that_lacks_images_is_refused_unless_asked_for(tmp_path: Path) -> None:
    names, data = _files(tmp_path, a=[0, 0.5], b=[1, 1.5])
    for k in (0, 1):
        rows = json.loads((tmp_path / f"b{k}.json").read_text())
        (tmp_path / f"b{k}.json").write_text(json.dumps(rows[:2]))
    with pytest.raises(YolomishError, match=r"b has no detections on 2 of 4 images with objects, a on 0: .*--allow-missing"):
        _compared(names, data, tmp_path)
    report = _compared(names, data, tmp_path, allow_missing=True)
    assert "Images with objects and no detection, of 4: a 0, b 2." in declared(report)


def test_equal_detections_are_called_so(tmp_path: Path) -> None:
    names, data = _files(tmp_path, a=[0, 1], b=[0, 1])
    rows = json.loads((tmp_path / "b0.json").read_text())
    (tmp_path / "b0.json").write_text(json.dumps(rows[::-1]))  # in another order
    report = _compared(names, data, tmp_path)
    d = report.primary[0]
    assert d.verdict is Verdict.IDENTICAL and d.p is None and d.low is None and "identical detections" in headline(report)
    assert badges(report) == ["identical detections"]


def test_every_verdict_of_several_arms_names_its_arm(tmp_path: Path) -> None:
    names, data = _files(tmp_path, good=[0, 1, 0.5], bad=[200, 201, 202], worse=[300, 301, 302])
    report = _compared(names, data, tmp_path, all_pairs=True)
    assert [badge.split(": ")[0] for badge in badges(report)] == ["good - bad", "good - worse", "bad - worse"]
    for name in ("report.html", "report.md", "report.tex"):
        text = (tmp_path / "out" / name).read_text()
        for claim in ("A better", "B better", "averaged weights", "? / ?", "seed 0", "last checkpoint"):
            assert claim not in text, (name, claim)
    assert "Not known: only detections were given" in (tmp_path / "out" / "report.md").read_text()
    assert all(arm.ranks for arm in report.arms)
    assert _compared(names, data, tmp_path).primary[0].b == "bad"


def test_a_margin_is_judged_and_said(tmp_path: Path) -> None:
    names, data = _files(tmp_path, a=[0, 1, 2], b=[0.5, 1.5, 2.5])
    report = _compared(names, data, tmp_path, margin=0.9)
    e = report.primary[0].equivalence
    assert e is not None and e.finding in (Equality.EQUIVALENT, Equality.NOT_SHOWN) and "within ±90.00, p" in headline(report)
    with pytest.raises(YolomishError, match="--margin must be an AP from 0 to 1"):
        Judging(margin=5)


def test_looks_are_counted_whoever_takes_them(tmp_path: Path) -> None:
    assert take_look(tmp_path, Look(seeds=3)) == (Look(seeds=3),) == take_look(tmp_path, Look(seeds=3))
    assert take_look(tmp_path, Look(seeds=5)) == (Look(seeds=3), Look(seeds=5)) == read_looks(tmp_path)
    planned = declared_looks(3, 5)
    assert [look.seeds for look in planned] == [3, 4, 5] and tuple(look.level for look in planned) == t_levels((3, 4, 5))
    assert declared_looks(4, 0) == (Look(seeds=4, level=0.05),)
    with pytest.raises(YolomishError, match="--max-seeds must be at least 3"):
        declared_looks(3, 2)
    for words, way_out in ((["--max-seeds", "5"], "or say --seeds"), (["--until-decided", "--seeds", "4"], "leave out --seeds")):
        assert str(CliRunner().invoke(app, ["compare", *words]).exception).endswith(way_out)


@pytest.mark.parametrize(("gain", "seeds"), [(0.3, 3), (0.0, 6)])
def test_a_comparison_goes_on_until_it_is_decided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gain: float, seeds: int
) -> None:
    noise = [0.001, -0.002, 0.0015, 0.0, -0.001, 0.002]

    def trained(planned: list, *_: Any) -> list:
        return sorted(planned, key=lambda run: (run.arm != "mish", run.seed))

    def measured(runs: list, *_: Any) -> tuple:
        found = []
        for run in runs:
            ap = 0.4 + (gain + noise[run.seed] if run.arm == "mish" else -noise[(run.seed + 1) % 6])
            found.append(dataclasses.replace(run, metrics={"AP": ap}))
        return found, {}, None

    ended: list[Design] = []

    def conclude(runs: list, data: Any, design: Design, *_: Any, **__: Any) -> None:
        ended.append(design)

    monkeypatch.setattr(compare, "train", trained)
    monkeypatch.setattr(compare, "measure", measured)
    monkeypatch.setattr(compare, "_conclude", conclude)
    base = dataclasses.replace(BASE, data=squares(tmp_path / "data"), device="cpu")
    compare_activations(base, ["mish", "relu"], 3, tmp_path / "out", most_seeds=6, log=lambda _: None)
    assert ended[0].looks[-1].seeds == seeds and read_looks(tmp_path / "out") == ended[0].looks


def test_a_plan_says_seeds_and_hours_before_training(tmp_path: Path) -> None:
    run = CliRunner().invoke(app, ["compare", "--plan", "--spread", "0.01", "--resolve", "0.01", "--hours", "2"])
    assert run.exit_code == 0 and "takes 10 seeds per arm." in run.stdout and "40.0 hours" in run.stdout  # G*Power: n = 10
    refused = CliRunner().invoke(app, ["compare", "--plan"])
    assert "--plan needs what seeds differ by" in str(refused.exception)
    for wrong in (["--spread", "inf"], ["--image-error", "inf"], ["--hours", "nan"], ["--acts", "mish"]):
        refused = CliRunner().invoke(app, ["compare", "--plan", "--spread", "0.01", *wrong])
        assert isinstance(refused.exception, YolomishError) and wrong[0] in str(refused.exception)
    names, data = _files(tmp_path, a=[0, 1, 2], b=[0.5, 2.5, 2])
    save_yaml(data, tmp_path / "data.yaml")
    words = ["compare", *names, "--plan", "--data", str(tmp_path / "data.yaml"), "--output", str(tmp_path), "--resolve", "0.2"]
    run = CliRunner().invoke(app, words)
    assert run.exit_code == 0 and "6 finished trainings of 2 arms" in run.stdout and "finds, 80 % sure" in run.stdout
    assert not list(tmp_path.rglob("report.html"))


def test_a_report_ends_with_what_next(tmp_path: Path) -> None:
    names, data = _files(tmp_path, a=[0, 1, 2], b=[0.5, 2.5, 2])
    report = _compared(names, data, tmp_path)
    (line,) = next_steps(report)
    assert "to find a true difference of 1.00 in four of five comparisons" in line
    assert line in (tmp_path / "out" / "report.md").read_text() and write_report(report).is_file()
    one = _compared([names[0], names[3]], data, tmp_path)
    assert "three files or more per arm" in next_steps(one)[0]
