"""A comparison changes the activation alone, its statistics are right, and its report says what the numbers say."""

import dataclasses
import json
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from yolomish.comparison import build_arms, build_report, config_difference, require_controlled, write_report
from yolomish.comparison.report import ArmNames, EpochPoint, Report, RunResult
from yolomish.config import DataConfig, ModelConfig, TrainConfig
from yolomish.errors import YolomishError
from yolomish.evaluation.stats import A_BETTER, B_BETTER, NO_DIFFERENCE, ONE_SEED, paired_difference

BASE = TrainConfig(model=ModelConfig(name="tiny", width=0.125, depth=0.1), image_size=64, epochs=1, batch=4, workers=0)


@pytest.mark.parametrize(
    ("scope", "keys"),
    [
        ("backbone", {"model.activation"}),
        ("neck", {"model.neck_activation"}),
        ("all", {"model.activation", "model.neck_activation"}),
    ],
)
def test_arms_differ_in_the_activation_alone(scope: str, keys: set[str]) -> None:
    a, b = build_arms(BASE, ["silu", "relu"], scope=scope)
    assert config_difference(a.config, b.config) == {key: ("silu", "relu") for key in keys}
    assert set(config_difference(BASE, a.config)) == keys
    assert a.seeded(3).seed == b.seeded(3).seed == 3


def test_guard_trips_on_a_planted_other_difference() -> None:
    a, b = build_arms(BASE, ["mish", "relu"])
    planted = dataclasses.replace(b, config=dataclasses.replace(b.config, peak_lr=0.5))
    with pytest.raises(YolomishError, match=r"NOT CONTROLLED.*peak_lr \(0.01 and 0.5\)"):
        require_controlled([a, planted])


def test_repeated_names_become_arms_of_their_own() -> None:
    arms = build_arms(BASE, ["mish", "mish", "a/f.py:g", "a.f.py/g"])
    assert [a.label for a in arms[:2]] == ["mish", "mish (2)"]
    assert len({a.slug for a in arms}) == 4
    assert not any("/" in a.slug or " " in a.slug for a in arms)
    assert config_difference(arms[0].config, arms[1].config) == {}


@pytest.mark.parametrize(("acts", "scope", "words"), [(["mish"], "all", "at least two"), (["a", "b"], "nek", "'neck'")])
def test_bad_requests_are_refused(acts: list[str], scope: str, words: str) -> None:
    with pytest.raises(YolomishError, match=words):
        build_arms(BASE, acts, scope=scope)


def test_paired_interval_of_a_hand_case() -> None:
    d = paired_difference("AP", "a", "b", [0.3, 0.5, 0.7], [0.2, 0.3, 0.4])  # 0.1, 0.2, 0.3: sd 0.1
    half = 4.302653 * 0.1 / 3**0.5
    assert d.mean == pytest.approx(0.2)
    assert (d.low, d.high) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ([0.60, 0.61, 0.62], [0.50, 0.51, 0.521], A_BETTER),
        ([0.50, 0.51, 0.521], [0.60, 0.61, 0.62], B_BETTER),
        ([0.50, 0.60, 0.55], [0.55, 0.54, 0.57], NO_DIFFERENCE),
        ([0.5, 0.6], [0.5, 0.6], NO_DIFFERENCE),
        ([0.9], [0.1], ONE_SEED),
        ([0.5], [0.5], ONE_SEED),
    ],
)
def test_verdicts(a: list[float], b: list[float], verdict: str) -> None:
    assert paired_difference("AP", "a", "b", a, b).verdict == verdict


def _run(arm: str, seed: int, ap: float, kernels: str = "") -> RunResult:
    points = tuple(EpochPoint(epoch=e, loss=5 / e, ap=None if e == 2 else ap, ap50=None if e == 2 else ap) for e in (1, 2, 3))
    return RunResult(
        arm=arm,
        seed=seed,
        ap=ap,
        ap50=ap + 0.2,
        ap75=ap - 0.05,
        step_ms=123.4 if arm == "mish" else 100.0,
        peak_memory_bytes=512 * 2**20,
        initial_kernels=kernels or f"kernels{seed}",
        folder=f"x-seed{seed}",
        best="x/best.pt",
        epochs=points,
    )


def _report(values: dict[str, list[float]], difference: dict | None = None, kernels: str = "") -> Report:
    runs = [_run(arm, s, ap) for arm, aps in values.items() for s, ap in enumerate(aps)]
    if kernels:
        runs[-1] = dataclasses.replace(runs[-1], initial_kernels=kernels)
    return build_report(
        arms=tuple(ArmNames(label=a, activation=a, neck_activation="leaky_relu") for a in values),
        runs=tuple(runs),
        scope="backbone",
        config={"image_size": 64, "data": {"format": "shapes"}, "model": {"name": "tiny"}},
        config_difference={"model.activation": tuple(values)} if difference is None else difference,
        environment={"torch": "9.9", "CPU": "<Some & CPU>"},
        command="yolomish compare --acts mish,relu",
    )


class _Page(HTMLParser):
    VOID = ("meta", "img", "br", "link")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.links: list[str] = []
        self.images = 0

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href") and not v.startswith("data:image/png;base64,")]
        self.images += tag == "img"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_three_reports_hold_the_same_numbers(tmp_path: Path) -> None:
    report = _report({"mish": [0.60, 0.61, 0.62], "relu": [0.50, 0.51, 0.521]})
    page = write_report(report, tmp_path)
    parser = _Page()
    source = page.read_text()
    parser.feed(source)
    parser.close()
    assert not parser.open and not parser.links and parser.images == 3
    assert "http" not in source and "url(" not in source and "<script" not in source
    shown = " ".join(parser.text)
    markdown = (tmp_path / "report.md").read_text()
    low, high = report.differences[0].low, report.differences[0].high
    for text in (shown, markdown):
        for part in ("0.6100 ± 0.0100", "+0.1000", "+0.0990", "123.4 ms", "1.00x", "0.81x", "512 MiB", "<Some & CPU>"):
            assert part in text, part
        assert f"[{low:+.4f}, {high:+.4f}]" in text
        assert report.headline in text and "What this does not show" in text and report.command in text
        assert "model.activation" in text and all(limit in text for limit in report.limits)
    assert report.verdict == A_BETTER and "A better (mish)" in report.headline
    data = json.loads((tmp_path / "report.json").read_text())
    assert data["verdict"] == A_BETTER and data["runs"][0]["ap"] == 0.60 and data["differences"][0]["low"] == low


def test_one_seed_is_inconclusive_however_far_apart(tmp_path: Path) -> None:
    report = _report({"mish": [0.9], "relu": [0.1]})
    assert report.verdict == ONE_SEED and "no interval" in report.headline
    assert write_report(report, tmp_path).is_file()


def test_equal_arms_show_no_difference(tmp_path: Path) -> None:
    report = _report({"mish": [0.5, 0.6], "mish (2)": [0.5, 0.6]}, difference={})
    assert report.verdict == NO_DIFFERENCE and report.controlled
    assert "equal in every seed" in report.headline
    assert "A/A" in write_report(report, tmp_path).read_text()


@pytest.mark.parametrize(
    ("difference", "kernels", "word"), [({"peak_lr": (0.01, 0.5)}, "", "peak_lr"), ({}, "others", "initial kernels")]
)
def test_an_uncontrolled_report_says_so_first(difference: dict, kernels: str, word: str) -> None:
    report = _report({"mish": [0.5, 0.6], "relu": [0.1, 0.2]}, difference=difference, kernels=kernels)
    assert not report.controlled and report.headline.startswith("NOT CONTROLLED") and word in report.headline


def test_more_arms_widen_the_interval() -> None:
    one = _report({"mish": [0.5, 0.6, 0.61], "relu": [0.4, 0.3, 0.5]}).differences[0]
    two = _report({"mish": [0.5, 0.6, 0.61], "relu": [0.4, 0.3, 0.5], "silu": [0.4, 0.3, 0.5]}).differences[0]
    assert two.confidence == pytest.approx(0.975) and two.low < one.low and two.high > one.high


def test_a_report_refuses_missing_runs() -> None:
    with pytest.raises(ValueError, match="every arm at every seed"):
        _report({"mish": [0.5, 0.6], "relu": [0.1]})


def _yolo_data(root: Path) -> DataConfig:
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
        for i in range(count):
            image = rng.integers(0, 60, (64, 64, 3), dtype=np.uint8)
            x, y = (int(v) for v in rng.integers(4, 28, 2))
            image[y : y + 30, x : x + 30] = 255
            cv2.imwrite(str(root / "images" / split / f"{i}.png"), image)
            line = f"0 {(x + 15) / 64} {(y + 15) / 64} {30 / 64} {30 / 64}\n"
            (root / "labels" / split / f"{i}.txt").write_text(line)
    return DataConfig(format="yolo", root=str(root), train="images/train", val="images/val", names=("square",))


def test_arms_of_one_seed_start_from_the_same_kernels() -> None:
    from yolomish.comparison.run import initial_kernels

    arms = build_arms(BASE, ["mish", "leaky_relu", "prelu"], scope="all")
    assert len({initial_kernels(arm.seeded(1)) for arm in arms}) == 1
    assert initial_kernels(arms[0].seeded(1)) != initial_kernels(arms[0].seeded(2))


def test_same_activation_twice_gives_identical_curves_and_is_not_trained_again(tmp_path: Path) -> None:
    from yolomish.comparison.run import run_comparison

    base = dataclasses.replace(BASE, data=_yolo_data(tmp_path / "data"), device="cpu")
    lines: list[str] = []
    report = run_comparison(base, ["mish", "mish"], 1, tmp_path / "out", log=lines.append)
    a, b = report.runs
    assert a.epochs == b.epochs and a.epochs[0].loss > 0 and (a.ap, a.ap50, a.ap75) == (b.ap, b.ap50, b.ap75)
    assert not report.config_difference and (tmp_path / "out" / a.best).is_file()
    assert sum("training mish" in line for line in lines) == 2
    lines.clear()
    again = run_comparison(base, ["mish", "mish"], 1, tmp_path / "out", log=lines.append)
    assert again == report and not any("] training" in line for line in lines)
    with pytest.raises(YolomishError, match="other settings"):
        run_comparison(dataclasses.replace(base, peak_lr=0.02), ["mish", "mish"], 1, tmp_path / "out", log=lines.append)


def test_unknown_activation_is_refused_before_any_work(tmp_path: Path) -> None:
    from yolomish.commands.compare import split_acts

    with pytest.raises(YolomishError, match="did you mean 'mish'"):
        split_acts("mihs,relu")
    assert not list(tmp_path.iterdir())


def test_demo_configuration_is_valid() -> None:
    from yolomish.commands.demo import demo_config
    from yolomish.config import check_train

    check_train(demo_config())
