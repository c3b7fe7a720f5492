"""Comparing classifiers: the same report, by accuracy over seeds and images, with McNemar's exact test of a pair."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from reference.classes import TINY, coloured_squares
from reference.comparison import BASE, squares
from scipy.stats import binomtest, bootstrap
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.comparison import Report, compare_activations, compare_finished, evidence
from yolomish.comparison.render import headline, limits, to_markdown
from yolomish.config import save_yaml
from yolomish.errors import YolomishError
from yolomish.evaluation.mcnemar import mcnemar
from yolomish.evaluation.stats import Sample, difference
from yolomish.tasks.classification.metrics import hits
from yolomish.training.loop import fit

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """mish, relu and silu at two seeds on coloured squares."""
    root = tmp_path_factory.mktemp("compared")
    base = replace(TINY, data=coloured_squares(root / "data", val=6), epochs=1)
    return compare_activations(base, ["mish", "relu", "silu"], 2, root / "out", scope="all", log=lambda _: None)


def rows_of(report: Report, arm: str, seed: int) -> list[dict]:
    (run,) = (run for run in report.runs if (run.arm, run.seed) == (arm, seed))
    return json.loads((run.home / f"{evidence.PREDICTIONS}.json").read_text())


def test_accuracies_are_those_of_the_kept_results(compared: Report) -> None:
    assert compared.metric == "top1" and compared.controlled and compared.images == compared.objects == 18
    for run in compared.runs:
        found = hits(rows_of(compared, run.arm, run.seed)).mean(0)
        assert [run.metrics["top1"], run.metrics["top5"]] == pytest.approx(found.tolist())
        assert run.best_ap is not None and run.epochs[-1].ap == pytest.approx(run.metrics["top1"])
        assert set(run.per_class) == {"blue", "green", "red"}
    assert [d.b for d in compared.primary] == ["relu", "silu"]
    for d in compared.primary:
        values = [[r.metrics["top1"] for r in compared.runs if r.arm == arm] for arm in (d.a, d.b)]
        assert d.per_seed == pytest.approx([x - y for x, y in zip(*values, strict=True)])


def test_mcnemar_is_scipys_binomial_of_the_discordant_images(compared: Report) -> None:
    assert [(m.a, m.b, m.seed) for m in compared.mcnemar] == [("mish", b, s) for b in ("relu", "silu") for s in (0, 1)]
    for m in compared.mcnemar:
        a, b = (np.array([row["classes"][0] == row["label"] for row in rows_of(compared, arm, m.seed)]) for arm in (m.a, m.b))
        assert (m.only_a, m.only_b) == ((a & ~b).sum(), (b & ~a).sum())
        assert m.p == pytest.approx(binomtest(m.only_a, m.only_a + m.only_b).pvalue if m.only_a + m.only_b else 1)


def test_mcnemar_by_hand() -> None:
    right = np.array([True] * 8 + [False] * 12)
    other = np.array([True] * 2 + [False] * 6 + [True] + [False] * 11)
    found = mcnemar("a", "b", 0, right, other)
    assert (found.only_a, found.only_b) == (6, 1)
    assert found.p == pytest.approx(2 * (math.comb(7, 0) + math.comb(7, 1)) / 2**7)  # both tails of seven fair coins
    assert mcnemar("a", "b", 0, right, right).p == 1


def test_the_images_part_of_the_error_is_that_of_a_paired_bootstrap() -> None:
    from yolomish.evaluation.resample import draw_images
    from yolomish.tasks.classification.metrics import resampled_accuracy

    rng = np.random.default_rng(0)
    ranks = rng.random((2, 400)) < np.array([[0.3], [0.25]])
    draws = draw_images(400, 4000, rng)
    drawn = [resampled_accuracy([{"rank": int(r), "label": 0} for r in row], 1, draws)[:, 0] for row in ranks]
    right = (~ranks).astype(float)
    samples = [Sample(values=(row.mean(),), resampled=values[None]) for row, values in zip(right, drawn, strict=True)]
    found = difference("top1", "a", "b", *samples)
    theirs = bootstrap((right[0] - right[1],), np.mean, n_resamples=4000, rng=rng)
    assert found.error == pytest.approx(theirs.standard_error, rel=0.05)
    assert found.error == pytest.approx((right[0] - right[1]).std() / 20, rel=0.05)


def test_the_report_speaks_of_accuracy(compared: Report) -> None:
    text = to_markdown(compared)
    assert "top1 x 100" in headline(compared) and "## Pairs of models" in text and "## Other looks at top1" in text
    assert "top5 is shown beside top1 but not corrected" in text and "changes in every layer" in " ".join(limits(compared))
    assert "COCO" not in text and "box" not in text and " AP" not in text and "backbone" not in text
    page = (compared.folder / "report.html").read_text()
    assert "McNemar" in page and "By class" in page and "Where the arms disagree" not in page
    content = json.loads((compared.folder / "report.json").read_text())
    assert len(content["mcnemar"]) == 4 and {row["part"] for row in content["layers"]} == {"stem", "stages"}


def test_finished_classifiers_are_compared_and_their_results_kept(compared: Report, tmp_path: Path) -> None:
    folders = [str(run.path) for run in compared.runs if run.arm != "silu"]
    again = compare_finished(folders, tmp_path / "again", log=lambda _: None)
    assert again.primary[0].per_seed == compared.primary[0].per_seed
    assert [m.p for m in again.mcnemar] == [m.p for m in compared.mcnemar[:2]]


def test_detectors_and_classifiers_have_no_common_measure(compared: Report, tmp_path: Path) -> None:
    config = replace(BASE, data=squares(tmp_path / "data"), device="cpu")
    fit(config, tmp_path / "detector", log=lambda _: None)
    with pytest.raises(YolomishError, match="runs that classify and runs that detect have no common measure"):
        compare_finished([str(compared.runs[0].path), str(tmp_path / "detector")], tmp_path / "out", log=lambda _: None)


def test_the_command_compares_by_a_recipe_of_classification(tmp_path: Path) -> None:
    coloured_squares(tmp_path / "data")
    save_yaml(TINY.model, tmp_path / "tiny.yaml")
    recipe = "task: classify\nimage_size: 32\nepochs: 1\nbatch: 6\nmosaic: 0\nhue: 0\nburn_in: 1\nworkers: 0\ndevice: cpu\n"
    (tmp_path / "quick.yaml").write_text(recipe)
    options = f"--recipe {tmp_path}/quick.yaml --model {tmp_path}/tiny.yaml --data {tmp_path}/data --seeds 1 --acts relu,mish"
    done = CliRunner().invoke(app, ["compare", *options.split(), "--output", str(tmp_path / "out"), "--name", "x"])
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "out" / "x" / "report.json").read_text())
    assert (
        content["scope"] == "all"
        and content["verdicts"][0]["verdict"] == "inconclusive (one seed)"
        and "--scope all" in content["command"]
    )
    assert set(content["config_difference"]) == {"model.activation", "model.neck_activation"}
