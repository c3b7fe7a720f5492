"""A comparison changes the activation alone, its statistics are right, and its report says what the numbers say."""

import csv
import dataclasses
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from reference.comparison import BASE, squares
from reference.detections import simulate_results, simulate_truth

from yolomish.comparison import Report, compare_activations, write_report
from yolomish.comparison.arms import build_arms, require_controlled
from yolomish.comparison.environment import environment
from yolomish.comparison.evidence import weigh
from yolomish.comparison.findings import build_report
from yolomish.comparison.rates import choose_rates
from yolomish.comparison.render import (
    declared,
    findings,
    gallery,
    headline,
    limits,
    not_controlled,
    plots,
    tables,
    to_html,
    to_json,
    to_latex,
    to_markdown,
)
from yolomish.comparison.render.gallery import disagreements
from yolomish.comparison.render.latex import escape
from yolomish.comparison.render.wording import chosen_rates, measured
from yolomish.comparison.report import Design, Look, Tuned
from yolomish.comparison.runs import EpochPoint, Run, Start, State
from yolomish.comparison.train import Here, plan
from yolomish.config import TrainConfig, config_difference
from yolomish.data.datasets import DetectionData, open_data
from yolomish.data.formats.record import Listing, Record
from yolomish.drawing import boxes
from yolomish.errors import YolomishError
from yolomish.evaluation.coco_results import NOTHING, CocoResults
from yolomish.evaluation.stats import Sample, Verdict, difference
from yolomish.files import digest


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


@pytest.mark.parametrize(("acts", "scope", "words"), [(["mish"], "all", "at least two"), (["a", "b"], "nek", "name all, a part")])
def test_bad_requests_are_refused(acts: list[str], scope: str, words: str) -> None:
    with pytest.raises(YolomishError, match=words):
        build_arms(BASE, acts, scope=scope)


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ([0.60, 0.61, 0.62], [0.50, 0.51, 0.521], Verdict.A_BETTER),
        ([0.50, 0.51, 0.521], [0.60, 0.61, 0.62], Verdict.B_BETTER),
        ([0.50, 0.60, 0.55], [0.55, 0.54, 0.57], Verdict.NO_DIFFERENCE),
        ([0.5, 0.6], [0.5, 0.6], Verdict.NO_DIFFERENCE),
        ([0.9], [0.1], Verdict.ONE_SEED),
        ([0.5], [0.5], Verdict.ONE_SEED),
    ],
)
def test_verdicts(a: list[float], b: list[float], verdict: str) -> None:
    assert difference("AP", "a", "b", Sample(values=tuple(a)), Sample(values=tuple(b))).verdict is verdict


def _run(arm: str, seed: int, ap: float, *, config: TrainConfig = BASE, kernels: str = "") -> Run:
    points = tuple(EpochPoint(epoch=e, loss=5 / e, ap=None if e == 2 else ap, ap50=None if e == 2 else ap) for e in (1, 2, 3))
    path = Path(f"x-seed{seed}")
    return Run(
        arm=arm,
        seed=seed,
        path=path,
        home=path,
        state=State.FINISHED,
        config=dataclasses.replace(config, model=dataclasses.replace(config.model, activation=arm.split()[0]), seed=seed),
        start=Start(weights="", kernels=kernels or f"kernels{seed}"),
        metrics={"AP": ap, "AP50": ap + 0.2, "AP75": ap - 0.05, "APs": None, "APm": ap, "APl": ap},
        step_ms=123.4 if arm == "mish" else 100.0,
        peak_memory_bytes=512 * 2**20,
        epochs=points,
    )


DESIGN = Design(environment={"torch": "9.9", "CPU": "<Some & CPU>"}, command="yolomish compare --acts mish,relu")


def test_a_report_states_any_scope() -> None:
    for scope in ("leaky_relu", "0-104"):
        text = to_json(_report({"mish": [0.4, 0.5], "relu": [0.3, 0.4]}, design=dataclasses.replace(DESIGN, scope=scope)))
        assert f"here it changes in {scope} only" in text


def _report(values: dict[str, list[float]], folder: Path = Path("out"), design: Design = DESIGN, **last: Any) -> Report:
    """A report of simulated runs; ``last`` is what the last arm's runs have of their own."""
    runs = [
        _run(arm, s, ap, **(last if arm == list(values)[-1] else {})) for arm, aps in values.items() for s, ap in enumerate(aps)
    ]
    return build_report(runs, design, folder)


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
        self.links += [v for k, v in attrs if k in ("src", "href") and not re.match("data:image/(png|jpeg);base64,", v)]
        self.images += tag == "img"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_three_reports_hold_the_same_numbers(tmp_path: Path) -> None:
    report = _report({"mish": [0.60, 0.61, 0.62], "relu": [0.50, 0.51, 0.521]}, tmp_path)
    page = write_report(report)
    parser = _Page()
    source = page.read_text()
    parser.feed(source)
    parser.close()
    assert not parser.open and not parser.links and parser.images == 4
    assert "http" not in source and "url(" not in source and "<script" not in source
    shown = " ".join(parser.text)
    markdown = (tmp_path / "report.md").read_text()
    low, high = report.differences[0].low, report.differences[0].high
    for text in (shown, markdown):
        for part in (
            "61.0 ± 1.0",
            "52.1" if text is markdown else "51.0 ± 1.1",
            "+10.0",
            "+9.9",
            "123.4 ms",
            "0.81x",
            "512 MiB",
            "Some & CPU>",
        ):
            assert part in text, part
        assert f"[{100 * low:+.1f}, {100 * high:+.1f}]" in text
        assert (
            all(line in text for line in findings(report)) and "What this does not show" in text and report.design.command in text
        )
        assert "model.activation" in text and all(limit in text for limit in limits(report))
    assert report.primary[0].verdict is Verdict.A_BETTER and "mish - relu: mish better" in headline(report)
    data = json.loads((tmp_path / "report.json").read_text())
    assert (
        data["verdicts"][0]["verdict"] == Verdict.A_BETTER
        and data["runs"][0]["metrics"]["AP"] == 0.60
        and data["differences"][0]["low"] == low
    )


def test_one_seed_is_inconclusive_however_far_apart(tmp_path: Path) -> None:
    report = _report({"mish": [0.9], "relu": [0.1]}, tmp_path)
    assert report.primary[0].verdict is Verdict.ONE_SEED and "no interval" in headline(report)
    assert write_report(report).is_file()


def test_equal_arms_show_no_difference(tmp_path: Path) -> None:
    report = _report({"mish": [0.5, 0.6], "mish (2)": [0.5, 0.6]}, tmp_path)
    assert report.primary[0].verdict is Verdict.NO_DIFFERENCE and report.controlled
    assert "equal in every seed" in headline(report)
    assert "A/A" in write_report(report).read_text()


@pytest.mark.parametrize(
    ("last", "settings", "seeds"),
    [
        ({"config": dataclasses.replace(BASE, peak_lr=0.5)}, ("peak_lr",), ()),
        ({"kernels": "others"}, (), (0, 1)),
    ],
)
def test_an_uncontrolled_report_says_so_first(last: dict, settings: tuple[str, ...], seeds: tuple[int, ...]) -> None:
    report = _report({"mish": [0.5, 0.6], "relu": [0.1, 0.2]}, **last)
    assert not report.controlled and (report.other_settings, report.other_starts) == (settings, seeds)
    assert headline(report).startswith(f"NOT CONTROLLED ({', '.join(not_controlled(report))})")


def test_more_arms_are_corrected() -> None:
    one = _report({"mish": [0.5, 0.6, 0.61], "relu": [0.4, 0.3, 0.5]}).differences[0]
    three = _report({"mish": [0.5, 0.6, 0.61], "relu": [0.4, 0.3, 0.5], "silu": [0.4, 0.3, 0.5]})
    two = three.differences[0]
    assert two.confidence == pytest.approx(0.975) and two.pooled and two.degrees == 4 and not one.pooled
    assert two.p_adjusted == pytest.approx(2 * two.p) and "97.5 % intervals" in headline(three)


def test_a_report_refuses_missing_runs() -> None:
    with pytest.raises(ValueError, match="every arm at every seed"):
        _report({"mish": [0.5, 0.6], "relu": [0.1]})


def test_arms_of_one_seed_start_from_the_same_kernels(tmp_path: Path) -> None:
    arms = build_arms(BASE, ["mish", "leaky_relu", "prelu", "acon", "swish_beta", "star_relu"], scope="all")
    first, second = ({run.start.kernels for run in plan(arms, [seed], tmp_path)} for seed in (1, 2))
    assert len(first) == len(second) == 1 and first != second


@pytest.mark.usefixtures("undrawn")
def test_same_activation_twice_gives_identical_curves_and_is_not_trained_again(tmp_path: Path) -> None:
    base = dataclasses.replace(BASE, data=squares(tmp_path / "data"), device="cpu")
    lines: list[str] = []
    report = compare_activations(base, ["mish", "mish"], 1, tmp_path / "out", log=lines.append)
    a, b = report.runs
    assert a.epochs == b.epochs and a.epochs[0].loss > 0 and a.metrics == b.metrics
    assert a.metrics["AP"] == pytest.approx(a.epochs[-1].ap, abs=1e-6)  # detected anew: what fit measured
    assert not report.config_difference and a.best.is_file()
    assert sum("training mish" in line for line in lines) == 2
    saved = json.loads((tmp_path / "out" / "mish-seed0" / "predictions-last.json").read_text())
    assert not saved or saved[0].keys() == {"image_id", "category_id", "bbox", "score"}
    lines.clear()
    again = compare_activations(base, ["mish", "mish"], 1, tmp_path / "out", log=lines.append)
    assert again.runs == report.runs and again.differences == report.differences and again.layers == report.layers
    assert not any("] training" in line for line in lines)
    with pytest.raises(YolomishError, match="other settings"):
        compare_activations(dataclasses.replace(base, peak_lr=0.02), ["mish", "mish"], 1, tmp_path / "out", log=lines.append)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_rates_are_chosen_on_training_images_held_out_and_judged_at_other_seeds(tmp_path: Path) -> None:
    base = dataclasses.replace(BASE, data=squares(tmp_path / "data"), device="cpu", seed=5)
    shutil.rmtree(tmp_path / "data" / "labels" / "val")  # no trial reads what judges
    out = tmp_path / "out"
    arms = build_arms(dataclasses.replace(base, model=dataclasses.replace(base.model, num_classes=1)), ["mish", "relu"])
    ran_on = environment("cpu")
    chosen, tuned = choose_rates(arms, (0.0001, 0.02), (6, 7), out / "lr-grid", ran_on, Here(devices=(), log=print), print)
    squares(tmp_path / "again")
    shutil.copytree(tmp_path / "again" / "labels" / "val", tmp_path / "data" / "labels" / "val")
    folders = {path.name for path in (out / "lr-grid").iterdir()}
    assert folders == {f"{act}-lr{rate}-seed{seed}" for act in ("mish", "relu") for rate in ("0.0001", "0.02") for seed in (6, 7)}
    for arm in chosen:
        aps = {}
        for rate in (0.0001, 0.02):
            rows = [csv.DictReader((out / "lr-grid" / f"{arm.slug}-lr{rate:g}-seed{s}" / "results.csv").open()) for s in (6, 7)]
            aps[rate] = [float(list(r)[-1]["metrics/AP"]) for r in rows]
            assert list(tuned.trials[arm.label][f"{rate:g}"]) == aps[rate]
        assert arm.config.peak_lr == tuned.rates[arm.label] == max(aps, key=lambda rate: sum(aps[rate]))
        assert arm.config.data.held_out == 0
    assert tuned.seeds == (6, 7) and tuned.held_out == 2
    report = compare_activations(base, ["mish", "relu"], 1, out, lr_grid=(0.0001, 0.02), log=lambda _: None)
    assert report.design.tuned == tuned and report.controlled
    assert [run.trained().peak_lr for run in report.runs] == [tuned.rates[run.arm] for run in report.runs]
    assert [run.trained().seed for run in report.runs] == [5, 5] and report.images == 4
    text = (out / "report.md").read_text()
    assert "the best of 2 rates by mean AP of 2 seeds (6, 7; other than those that judge) on 2 images, 20 % of" in text
    assert json.loads((out / "report.json").read_text())["tuned"]["trials"]["mish"].keys() == {"0.0001", "0.02"}


def test_a_rate_at_the_end_of_its_grid_is_said() -> None:
    trials = {"mish": {"0.01": (0.2,), "0.02": (0.3,), "0.1": (0.1,)}, "relu": {"0.01": (0.2,), "0.02": (0.3,), "0.1": (0.4,)}}
    tuned = Tuned(rates={"mish": 0.02, "relu": 0.1}, trials=trials, seeds=(3,), share=0.2, held_out=9)
    assert tuned.at_edge == ("relu",) and "beyond those tried for relu:" in chosen_rates(tuned, "AP")


def test_an_aa_comparison_has_seeds_of_its_own() -> None:
    a, b = build_arms(BASE, ["mish", "mish"], seed_step=3)
    assert [a.seeded(s).seed for s in (0, 1, 2)] == [0, 1, 2] and [b.seeded(s).seed for s in (0, 1, 2)] == [3, 4, 5]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_an_aa_comparison_trains_other_seeds_and_stays_controlled(tmp_path: Path) -> None:
    base = dataclasses.replace(BASE, data=squares(tmp_path / "data"), device="cpu")
    report = compare_activations(base, ["mish", "mish"], 2, tmp_path / "out", other_seeds=True, log=lambda _: None)
    assert sorted(p.name for p in (tmp_path / "out").glob("*seed*")) == [
        "mish-2-seed2",
        "mish-2-seed3",
        "mish-seed0",
        "mish-seed1",
    ]
    assert report.controlled and declared(report)[0].startswith("A/A") and report.primary[0].verdict is Verdict.NO_DIFFERENCE
    assert len({run.start.kernels for run in report.runs}) == 4


def test_weights_are_one_file_or_one_for_every_activation(tmp_path: Path) -> None:
    from yolomish.commands.compare import split_weights

    for name in ("a.pt", "b.pt"):
        (tmp_path / name).write_text(name)
    a, b = str(tmp_path / "a.pt"), str(tmp_path / "b.pt")
    assert split_weights(a, ["mish", "relu"]) == {"mish": a, "relu": a}
    assert split_weights(f"mish={a},relu={b}", ["mish", "relu"]) == {"mish": a, "relu": b}
    with pytest.raises(YolomishError, match="no file for relu"):
        split_weights(f"mish={a}", ["mish", "relu"])
    with pytest.raises(YolomishError, match="no such weights file"):
        split_weights("none.pt", ["mish", "relu"])
    mish, relu = plan(build_arms(BASE, ["mish", "relu"], weights={"mish": a, "relu": b}), [0], tmp_path)
    assert (mish.start.weights, mish.start.sha256) == (a, digest(a).sha256) and mish.start.kernels != relu.start.kernels


def test_unknown_activation_is_refused_before_any_work(tmp_path: Path) -> None:
    from yolomish.commands.compare import split_acts

    with pytest.raises(YolomishError, match="did you mean 'mish'"):
        split_acts("mihs,relu")
    assert not list(tmp_path.iterdir())


def test_any_training_setting_can_be_given_to_all_arms() -> None:
    from yolomish.commands.compare import with_values

    config = with_values(BASE, ["mosaic=0", "freeze=[backbone]", "weight_decay=1e-3"])
    assert (config.mosaic, config.freeze, config.weight_decay) == (0.0, ("backbone",), 1e-3)
    with pytest.raises(YolomishError, match="did you mean 'mosaic'"):
        with_values(BASE, ["mosiac=0"])
    with pytest.raises(YolomishError, match="KEY=VALUE"):
        with_values(BASE, ["mosaic"])


def test_demo_configuration_is_valid() -> None:
    from yolomish.commands.demo import demo_config
    from yolomish.config import check_train

    check_train(demo_config())


def _data(images: int, root: Path | None = None) -> DetectionData:
    truth = simulate_truth(images, 4)
    label_of = {c["id"]: i for i, c in enumerate(truth.dataset["categories"])}
    records = []
    for image in truth.dataset["images"]:
        path = (root or Path()) / image["file_name"]
        if root:
            cv2.imwrite(str(path), np.full((480, 640, 3), 120, np.uint8))
        given = truth.imgToAnns[image["id"]]
        boxes = np.array([a["bbox"] for a in given], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        records.append(
            Record(
                path=path,
                image_id=image["id"],
                size_hw=(480, 640),
                boxes=boxes,
                labels=np.array([label_of[a["category_id"]] for a in given], np.int64),
                areas=np.array([a["area"] for a in given], np.float64),
                crowd=np.array([a["iscrowd"] for a in given], bool),
                ignore=np.zeros(len(given), bool),
            )
        )
    names = tuple(c["name"] for c in truth.dataset["categories"])
    source = Path("simulated.json")
    return DetectionData(Listing(source=source, names=names, category_ids=tuple(label_of), records=tuple(records), own_ids=True))


def _simulated(found: dict[str, float], seeds: int, folder: Path = Path("out"), images: int = 60) -> Report:
    data = _data(images)
    truth = data.coco()
    results = {
        (arm, seed): simulate_results(truth, found=share, seed=1000 * i + seed)
        for i, (arm, share) in enumerate(found.items())
        for seed in range(seeds)
    }
    evidence = weigh(results, data, "detect", resamples=200)
    runs = []
    for arm, seed in results:
        metrics, per_class = evidence.named((arm, seed))
        path = Path(f"{arm}{seed}.json")
        run = Run(arm=arm, seed=seed, path=path, home=path, state=State.DETECTIONS, metrics=metrics, per_class=per_class)
        runs.append(run)
    return build_report(runs, Design(), folder, evidence=evidence)


def test_a_planted_difference_is_reported_and_a_planted_null_is_not(tmp_path: Path) -> None:
    better = _simulated({"mish": 0.9, "relu": 0.5, "silu": 0.9}, 3)
    verdicts = {d.b: d.verdict for d in better.differences if d.metric == "AP"}
    assert verdicts == {"relu": Verdict.A_BETTER, "silu": Verdict.NO_DIFFERENCE} and better.primary[0].verdict is Verdict.A_BETTER
    assert re.search(r"3 files and 60 images, p [^.]+\.\d+\. Differences under ±\d+\.\d+ are noise", headline(better))
    worse = _simulated({"mish": 0.5, "relu": 0.9}, 3)
    assert worse.primary[0].verdict is Verdict.B_BETTER and worse.arms[0].levels["AP"].low < worse.arms[0].levels["AP"].mean
    null = _simulated({"mish": 0.75, "relu": 0.75}, 3, tmp_path)
    assert null.primary[0].verdict is Verdict.NO_DIFFERENCE and null.controlled and null.images == 60
    common = [d for d in null.class_differences if d.metric == "class0"]
    assert len(common) == 1 and common[0].low < 0 < common[0].high
    page = write_report(null).read_text()
    assert "AP by class" in page and "60 images" in page and "class0" in (tmp_path / "report.md").read_text()


def test_one_seed_says_what_the_images_alone_say() -> None:
    report = _simulated({"mish": 0.9, "relu": 0.5}, 1)
    d = report.differences[0]
    assert report.primary[0].verdict is Verdict.ONE_SEED and d.low > 0 and d.above_zero == 1.0
    assert "these trained models over images" in headline(report)


def test_what_the_intervals_cover_is_said_by_the_number_of_trainings() -> None:
    one, three = (to_markdown(_simulated({"mish": 0.9, "relu": 0.5}, seeds)) for seeds in (1, 3))
    assert "They cover the choice of images alone (200 resamples of 60 images), as an arm has one file." in one
    assert "the interval covers the choice of the validation images, not what differs between these files" in one
    assert "They cover files and images together (200 resamples of 60 images)." in three
    none, seeds = (to_markdown(_report({"mish": [0.9, 0.8][:n], "relu": [0.1, 0.2][:n]})) for n in (1, 2))
    assert "ntervals are" not in none and "1 training per arm, and there is no interval." in none
    assert "They cover seeds alone." in seeds and "median of each run, mean over seeds" in seeds


@pytest.mark.parametrize("bare", [True, False])
def test_one_training_is_no_plural(bare: bool) -> None:
    report = _simulated({"mish": 0.9, "relu": 0.5}, 1) if bare else _report({"mish": [0.9], "relu": [0.1]})
    design = Design(looks=(Look(seeds=1),), left_out={"mish": (3,)}, environment={"torch": "9.9"})
    report = dataclasses.replace(report, design=design, config_difference={})
    for text in (to_markdown(report), to_latex(report), to_html(report)):
        words = re.sub(r"base64,[^\"]*|use --seeds 3 or more|three files or more", "", text)
        found = re.search(r"\b1 (seeds|files|trainings)|(over|of) (seeds|trainings)|\bmean\b|images together|dots are", words)
        assert not found, words[found.start() - 60 : found.end() + 60]
    assert "Looks taken: 1 (at 1 seed)" in to_markdown(report) and "Left out of mish: seed 3," in to_markdown(report)


def test_the_latex_tables_hold_the_numbers_and_are_escaped(tmp_path: Path) -> None:
    write_report(_report({"leaky_relu": [0.60, 0.61, 0.62], "relu": [0.50, 0.51, 0.521]}, tmp_path))
    text = (tmp_path / "report.tex").read_text()
    assert (
        text.count("\\begin{tabular}") == text.count("\\end{tabular}") == 2
        and "\\textbf{61.0 $\\pm$ 1.0}" in text
        and text.count("\\label{tab:") == 2
    )
    assert not re.search(r"(?<!\\)[_%&#](?![^\n]*\\\\)", text.split("\n", 1)[1].replace(" & ", " "))


ODD_NAMES = ["a_b & <b>$x^2$", "5 % {é} #1~\\n", '\U0001f600 Ж ± -3 [q] "z" a--b `c` |', "x" * 60, "² α ≤ ß ą ñ\n\tq -- 1_-2"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("-0.5 to-1 a-b --", "$-$0.5 to-1 a-b -{}-"),
        ("café ğ ß", r"caf\'{e} \u{g} \ss{}"),
        ("α ±", r"$\alpha$ $\pm$"),
        ("猴", r"\otherscript{猴}{U+7334}"),
        ("a\nb", "a b"),
    ],
)
def test_latex_takes_any_text(text: str, wanted: str) -> None:
    assert escape(text) == wanted


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_the_latex_compiles_whatever_the_arms_are_called(tmp_path: Path) -> None:
    report = _report({name: [0.6 - i / 50, 0.61 - i / 40, 0.62] for i, name in enumerate(ODD_NAMES)})
    head = "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}\n"
    (tmp_path / "t.tex").write_text(head + to_latex(report) + "\\end{document}\n", encoding="utf-8")
    words = ["pdflatex", "-draftmode", "-halt-on-error", "-interaction=nonstopmode", "t.tex"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, timeout=120)
    log = done.stdout.decode("latin1")
    assert done.returncode == 0 and "Overfull" not in log and "Missing character" not in log, log


def test_images_of_disagreement_are_shown_in_both_directions(tmp_path: Path) -> None:
    data = _data(6, tmp_path)
    perfect = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9}
        for a in data.coco().dataset["annotations"]
        if not a["iscrowd"]
    ]
    ids = [i for i in data.image_ids if any(r["image_id"] == i for r in perfect)]
    a = [r for r in perfect if r["image_id"] != ids[0]]
    b = [r for r in perfect if r["image_id"] != ids[1]]
    found = disagreements({"a": CocoResults.of(a), "b": CocoResults.of(b)}, data)
    names = [data.path(data.image_ids.index(i)).name for i in (ids[1], ids[0])]
    assert [f.name for f in found] == names
    right, wrong, missed = found[0].counts[0]
    assert right == sum(r["image_id"] == ids[1] for r in perfect) and (wrong, missed) == (0, 0)
    assert found[0].counts[1] == (0, 0, right) and cv2.imdecode(np.frombuffer(found[0].truth, np.uint8), 1).shape[1] == 360
    same = CocoResults.of(perfect)
    assert disagreements({"a": same, "b": same}, data) == ()


def test_a_crowded_picture_has_no_label_over_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = _data(1, tmp_path)
    rows = [
        {
            "image_id": data.image_ids[0],
            "category_id": data.category_ids[i % 3],
            "bbox": [9 * i, 7 * i, 90, 80],
            "score": 1 - i / 99,
        }
        for i in range(40)
    ]
    written: list[list[boxes._Label]] = []
    monkeypatch.setattr(boxes, "_write", lambda canvas, place, colour: written[-1].append(place))
    monkeypatch.setattr(gallery, "jpeg", lambda image: written.append([]) or b"")
    written.append([])
    disagreements({"a": CocoResults.of(rows), "b": NOTHING}, data)
    assert max(map(len, written)) > 5
    for places in written:
        assert len(places) <= max(gallery.MOST_BOXES, 20) and not any(p.covers(q) for p, q in combinations(places, 2))


def test_axes_start_sensibly_with_one_evaluated_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "_figure", lambda axis, caption: axis)
    report = _report({"mish": [0.0], "relu": [0.4]})
    report = dataclasses.replace(
        report,
        runs=tuple(
            dataclasses.replace(r, epochs=(EpochPoint(epoch=1, loss=5.0, ap=r.metrics["AP"], ap50=0),)) for r in report.runs
        ),
    )
    loss, ap = plots.curves(report)
    for axis, low, high in ((loss, 5.0, 5.0), (ap, 0.0, 40.0)):
        axis.figure.canvas.draw()
        ticks = [x for x in axis.get_xticks() if axis.get_xlim()[0] <= x <= axis.get_xlim()[1]]
        bottom, top = axis.get_ylim()
        assert ticks == [1] and bottom < 0 and bottom < low and high < top < 1.5 * high


def test_what_all_arms_share_is_no_best() -> None:
    report = _report({"mish": [0.6, 0.5], "relu": [0.6, 0.5]})
    assert not tables.results(report).best
    better = tables.results(_report({"mish": [0.6, 0.5], "relu": [0.5, 0.5]}))
    assert {better.rows[i][0] for i, _ in better.best} == {"mish"}


def test_a_difference_without_the_far_runs_may_have_no_interval() -> None:
    d = difference("AP", "a", "b", Sample(values=(0.5,)), Sample(values=(0.5,)))
    assert measured(d) == "AP 0.0, no interval"


def test_layer_statistics_tell_dead_units_from_live_ones(tmp_path: Path) -> None:
    from yolomish.comparison.layers import layer_statistics, shared_batch
    from yolomish.networks import build_network
    from yolomish.weights.checkpoint import save_checkpoint

    rows = {}
    for act in ("relu", "leaky_relu"):
        model_config = dataclasses.replace(BASE.model, activation=act, num_classes=1)
        config = dataclasses.replace(BASE, model=model_config, data=squares(tmp_path / act))
        model = build_network(model_config)
        stem = model.backbone.stem[0]
        with torch.no_grad():
            stem.bn.weight.zero_()
            stem.bn.bias.fill_(1.0)
            stem.bn.bias[:2] = -1.0  # two channels of 8 under zero for every input
        save_checkpoint(tmp_path / f"{act}.pt", config=config, model=model, names=("square",))
        batch = shared_batch(open_data(config.data, "train"), config)
        rows[act] = layer_statistics(act, tmp_path / f"{act}.pt", config, batch)
    relu, leaky = rows["relu"][0], rows["leaky_relu"][0]
    assert relu.layer == "backbone.stem.0" and relu.dead == relu.saturated == 0.25 and relu.mean == pytest.approx(0.75)
    assert leaky.dead == leaky.saturated == 0 and leaky.mean == pytest.approx(0.725)
    assert all(row.gradient >= 0 for row in rows["relu"]) and any(row.gradient > 0 for row in rows["relu"])
