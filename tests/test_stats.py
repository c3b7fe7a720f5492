"""The statistics agree with pycocotools and scipy, and their 95 % intervals cover a known difference 95 % of the time."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import scipy.stats
from pycocotools.coco import COCO
from reference.detections import Images, coco, simulate_results, simulate_truth

from yolomish.evaluation import planning, precision, seed_tests, sequential, stats
from yolomish.evaluation.coco import run_cocoeval
from yolomish.evaluation.coco_results import NOTHING, CocoResults
from yolomish.evaluation.resample import draw_images, match, resampled_ap, summarise
from yolomish.evaluation.stats import Difference, Sample, Verdict, difference, family


def _paired(a: Sequence[float], b: Sequence[float], drawn: np.ndarray | None = None, **kwargs: Any) -> Difference:
    """The difference of paired values, whose (S, R) differences on resamples are ``drawn``."""
    second = np.zeros_like(drawn) if drawn is not None else None
    return difference(
        "AP", "a", "b", Sample(values=tuple(a), resampled=drawn), Sample(values=tuple(b), resampled=second), **kwargs
    )


def _ap(truth: COCO, results: CocoResults) -> np.ndarray:
    return np.asarray(run_cocoeval(truth, results).stats[:6])


def test_unit_weights_give_the_numbers_of_pycocotools() -> None:
    for seed in range(3):
        truth = simulate_truth(60, 6, seed=seed)
        results = simulate_results(truth, seed=seed, clutter=30)
        ones = np.ones((1, 60), np.int32)
        assert np.abs(summarise(resampled_ap(match(truth, results), ones))[0] - _ap(truth, results)).max() < 1e-12


def test_more_than_a_hundred_detections_an_image_are_cut_as_coco_cuts_them() -> None:
    truth = simulate_truth(6, 3)
    results = simulate_results(truth, clutter=500)
    ones = np.ones((1, 6), np.int32)
    assert np.abs(summarise(resampled_ap(match(truth, results), ones))[0] - _ap(truth, results)).max() < 1e-12


def test_a_resample_gives_the_numbers_of_pycocotools_on_the_images_drawn() -> None:
    truth = simulate_truth(25, 5)
    # Scores equal within an image have no order of their own once the image is drawn twice; those of several images do.
    rows = list(simulate_results(truth))
    results = [
        {**r, "score": r["score"] + 1e-5 * sum(q is not r and q["image_id"] == r["image_id"] for q in rows[:i])}
        for i, r in enumerate(rows)
    ]
    weights = draw_images(25, 40, np.random.default_rng(3))
    ours = summarise(resampled_ap(match(truth, CocoResults.of(results)), weights))
    for row, numbers in zip(weights[:6], ours, strict=False):
        images, annotations, drawn = [], [], []
        for count, image in zip(row, truth.dataset["images"], strict=True):
            for copy in range(count):
                new = image["id"] * 100 + copy
                images.append({**image, "id": new})
                annotations += [{**a, "image_id": new} for a in truth.imgToAnns[image["id"]]]
                drawn += [{**r, "image_id": new} for r in results if r["image_id"] == image["id"]]
        annotations = [{**a, "id": i + 1} for i, a in enumerate(annotations)]
        assert np.abs(numbers - _ap(coco(images, annotations, 5), CocoResults.of(drawn))).max() < 1e-6  # resamples are float32


def test_a_detector_that_finds_nothing_has_no_ap_and_a_class_without_objects_none_at_all() -> None:
    truth = simulate_truth(10, 3)
    ap = resampled_ap(match(truth, NOTHING), draw_images(10, 5, np.random.default_rng(0)))
    assert (ap[:, 0, 0] == 0).all() and np.isnan(ap[:, 2]).all()


def test_tests_over_seeds_agree_with_scipy() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 3, 5, 9):
        a, b = rng.normal(0.4, 0.02, n), rng.normal(0.39, 0.02, n)
        d = _paired(a, b)
        t = scipy.stats.ttest_rel(a, b)
        low, high = t.confidence_interval(0.95)
        assert d.p_t == pytest.approx(t.pvalue) and d.p == pytest.approx(t.pvalue, rel=1e-5)
        assert (d.low, d.high) == pytest.approx((low, high), rel=1e-5)
        assert d.p_ranks == pytest.approx(scipy.stats.wilcoxon(a, b, method="exact").pvalue)
        flips = scipy.stats.permutation_test((a - b,), np.mean, permutation_type="samples", n_resamples=10_000)
        assert d.p_signs == pytest.approx(flips.pvalue)


def test_many_seeds_are_drawn_not_enumerated() -> None:
    x = np.random.default_rng(0).normal(0.3, 1, 30)
    assert seed_tests.sign_flip_p(x) == pytest.approx(scipy.stats.ttest_1samp(x, 0).pvalue, abs=0.01)
    assert seed_tests.wilcoxon_p(x) == pytest.approx(scipy.stats.wilcoxon(x, method="exact").pvalue, abs=0.01)


def test_an_interval_leaves_out_zero_just_where_bonferronis_p_rejects() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        samples = {str(i): Sample(values=tuple(rng.normal(m, 0.02, 5))) for i, m in enumerate((0.5, 0.52, 0.46, 0.5))}
        found = family("AP", samples, [("0", "1"), ("0", "2"), ("0", "3")])
        assert {d.confidence for d in found} == {1 - 0.05 / 3}
        for d in found:
            assert (d.p_adjusted < 0.05) == (d.verdict in (Verdict.A_BETTER, Verdict.B_BETTER)) == (not d.low <= 0 <= d.high)
            assert d.p_adjusted == pytest.approx(min(1, 3 * d.p))


def test_cohens_d_of_a_published_pair() -> None:
    # Mish 87.48 ± 0.40 and Leaky ReLU 86.85 ± 0.46 over 23 runs (Mish repository, significance table): 0.63 / 0.431
    shape = np.random.default_rng(0).normal(size=23)
    shape = (shape - shape.mean()) / shape.std(ddof=1)
    effect = seed_tests.cohens_d(list(87.48 + 0.40 * shape), list(86.85 + 0.46 * shape[::-1]))
    assert effect.d == pytest.approx(1.4616, abs=1e-3) and effect.low < 0.9 and effect.high > 2.0
    assert seed_tests.cohens_d([0.5, 0.6, 0.5, 0.6], [0.4, 0.3, 0.4, 0.3]) is None  # four seeds say nothing of a size
    assert seed_tests.cohens_d([0.5] * 5, [0.4] * 5) is None


@pytest.mark.parametrize(("degrees", "confidence"), [(4, 0.95), (9, 0.95), (30, 0.975), (None, 0.95)])
def test_detectable_difference_has_the_power_of_the_noncentral_t(degrees: float | None, confidence: float) -> None:
    shift = precision.detectable(1.0, degrees, confidence)
    t = scipy.stats.t.ppf((1 + confidence) / 2, degrees or 1e7)
    power = scipy.stats.nct.sf(t, degrees or 1e7, shift) + scipy.stats.nct.cdf(-t, degrees or 1e7, shift)
    assert power == pytest.approx(0.8, abs=2e-3)
    assert precision.detectable(1.0, 1, 0.95) > 15  # two seeds see next to nothing


def _differences(quality: list[tuple[float, float]], images: Images, rng: np.random.Generator, resamples: int):
    """Values of A, of B and (S, R) differences of simulated detectors, one pair of qualities a seed."""
    weights = np.concatenate((np.ones((1, len(images.objects)), np.int32), draw_images(len(images.objects), resamples, rng)))
    ap = [[summarise(resampled_ap(images.detect(q, rng), weights, threads=1))[:, 0] for q in pair] for pair in quality]
    return [a[0] for a, _ in ap], [b[0] for _, b in ap], np.stack([a[1:] - b[1:] for a, b in ap])


@pytest.mark.slow
def test_image_intervals_cover_a_known_difference() -> None:
    rng = np.random.default_rng(1)
    truth = np.mean([np.subtract(*_differences([(0.9, 0.7)], Images(100, rng), rng, 1)[:2]) for _ in range(800)])
    covered = 0
    for _ in range(200):
        a, b, drawn = _differences([(0.9, 0.7)], Images(100, rng), rng, 200)
        d = _paired(a, b, drawn)
        assert d.verdict == Verdict.ONE_SEED and d.p_t is None
        covered += d.low <= truth <= d.high
    assert 0.04 < truth < 0.08 and 0.93 <= covered / 200 <= 0.97


@pytest.mark.parametrize(("seed_sd", "image_sd"), [(1, 0), (0, 10), (1, 10), (0.5, 3)])
def test_intervals_of_both_chances_cover_a_known_difference(seed_sd: float, image_sd: float) -> None:
    rng = np.random.default_rng(2)
    seeds, images, covered = 4, 100, 0
    for _ in range(400):
        own = rng.normal(0.3, seed_sd, (seeds, 1)) + rng.normal(0, image_sd, (1, images)) + rng.normal(0, 4, (seeds, images))
        drawn = own @ draw_images(images, 100, rng).T / images  # a metric that is a mean over images
        d = _paired(list(own.mean(1)), [0.0] * seeds, drawn)
        covered += d.low <= 0.3 <= d.high
    assert 0.93 <= covered / 400 <= 0.97


def test_a_planted_difference_is_found_and_a_planted_null_is_not() -> None:
    rng = np.random.default_rng(3)
    found = {0.0: [], 0.5: []}
    for gain, verdicts in found.items():
        for _ in range(40):
            quality = [(0.7 + gain + rng.normal(0, 0.05), 0.7 + rng.normal(0, 0.05)) for _ in range(3)]
            a, b, drawn = _differences(quality, Images(100, rng), rng, 100)
            verdicts.append(_paired(a, b, drawn).verdict)
    assert found[0.5].count(Verdict.A_BETTER) >= 36 and found[0.5].count(Verdict.B_BETTER) == 0
    assert found[0.0].count(Verdict.NO_DIFFERENCE) >= 36


def test_seeds_and_images_are_both_counted_once() -> None:
    rng = np.random.default_rng(4)
    own = rng.normal(0, 1, (6, 400))  # each seed has its own chance on the images, none is shared: all of it is in s already
    drawn = own @ draw_images(400, 500, rng).T / 400
    d = _paired(list(own.mean(1)), [0.0] * 6, drawn)
    assert d.images.error < 0.5 * d.seeds.error
    shared = np.repeat(rng.normal(0, 1, (1, 400)), 6, 0)
    drawn = shared @ draw_images(400, 500, rng).T / 400
    d = _paired(list(shared.mean(1)), [0.0] * 6, drawn)
    assert d.sd < 1e-12 and d.images.error == pytest.approx(1 / 20, rel=0.1) and d.verdict == Verdict.NO_DIFFERENCE


def test_resamples_without_a_value_are_left_out() -> None:
    drawn = np.array([[0.1, np.nan, 0.3], [0.1, 0.2, 0.3]])
    d = _paired([0.2, 0.2], [0.0, 0.1], drawn)
    assert np.isfinite([d.low, d.high, d.images.error]).all() and dataclasses.asdict(d)


def test_arms_without_common_seeds_are_welchs() -> None:
    rng = np.random.default_rng(0)
    for n, m in ((2, 2), (3, 5), (9, 4)):
        a, b = rng.normal(0.4, 0.03, n), rng.normal(0.38, 0.01, m)
        d = difference("AP", "a", "b", Sample(values=tuple(a)), Sample(values=tuple(b)), paired=False)
        t = scipy.stats.ttest_ind(a, b, equal_var=False)
        low, high = t.confidence_interval(0.95)
        assert (d.p, d.p_t, d.degrees) == pytest.approx((t.pvalue, t.pvalue, t.df))
        assert (d.low, d.high) == pytest.approx((max(low, -1), min(high, 1))) and not d.per_seed and d.counts == (n, m)


def test_unpaired_arms_share_the_chance_of_the_images() -> None:
    rng = np.random.default_rng(1)
    common, own = rng.normal(0.4, 0.1, 400), rng.normal(0, 0.05, 400)
    weights = draw_images(400, 2000, rng).T / 400
    a, b = (np.tile(row, (3, 1)) @ weights for row in (common, common + own))
    d = difference("AP", "a", "b", *(Sample(values=(0.4,) * 3, resampled=rows) for rows in (a, b)), paired=False, units=400)
    assert d.images.error == pytest.approx(own.std(ddof=1) / 20, rel=0.06)  # what both find hard cancels


def test_equivalence_is_two_one_sided_t_tests() -> None:
    rng = np.random.default_rng(2)
    for shift in (0.0, 0.004, -0.02):
        a, b = rng.normal(0.4 + shift, 0.004, 8), rng.normal(0.4, 0.004, 8)
        samples = {"a": Sample(values=tuple(a)), "b": Sample(values=tuple(b))}
        e = family("AP", samples, [("a", "b")], margin=0.01)[0].equivalence
        p_a = scipy.stats.ttest_1samp(a - b, -0.01, alternative="greater").pvalue
        p_b = scipy.stats.ttest_1samp(a - b, 0.01, alternative="less").pvalue
        assert (e.p_a_worse, e.p_b_worse, e.p) == pytest.approx((p_a, p_b, max(p_a, p_b)))
        wanted = {(True, True): stats.Equality.EQUIVALENT, (True, False): stats.Equality.A_NOT_WORSE}
        wanted |= {(False, True): stats.Equality.B_NOT_WORSE, (False, False): stats.Equality.NOT_SHOWN}
        assert e.finding is wanted[p_a < 0.05, p_b < 0.05]


def test_p_is_never_zero_and_no_interval_leaves_the_scale() -> None:
    far = _paired([0.9, 0.9, 0.9, 0.9 + 1e-12], [0.1, 0.1, 0.1, 0.1])
    assert 0 < far.p < 1e-20 and far.verdict is Verdict.A_BETTER
    wide = _paired([0.9, 0.1], [0.1, 0.8])
    assert (wide.low, wide.high) == (-1, 1)
    equal = _paired([0.5, 0.75], [0.25, 0.5])  # no spread at all: nothing to hold 0.25 against
    assert equal.p is None and equal.low is None and equal.verdict is Verdict.NO_SPREAD


@pytest.mark.parametrize("images", [5, 10, 20])
def test_few_images_have_the_quantiles_of_t(images: int) -> None:
    rng = np.random.default_rng(images)
    covered = []
    for _ in range(400):
        rows = rng.normal(0, 0.1, (1, images))
        d = _paired([rows.mean()], [0.0], rows @ draw_images(images, 400, rng).T / images, units=images)
        covered.append(d.low <= 0 <= d.high)
    assert 0.92 <= np.mean(covered) <= 0.98  # ± 0.011; with normal quantiles 0.84, 0.90 and 0.92


def test_the_promised_power_is_kept_in_most_reports_and_not_promised_of_two_seeds() -> None:
    rng = np.random.default_rng(3)
    assert _paired([0.5, 0.6], [0.4, 0.45]).detectable is None
    kept = []
    for _ in range(200):
        d = _paired(0.01 * rng.normal(0, 1, 3), [0.0] * 3)
        kept.append(precision.power(d.detectable / (0.01 / np.sqrt(3)), d.degrees, 0.95) >= 0.8)
    assert np.mean(kept) >= 0.8  # 0.85 by design, 0.025 is the Monte-Carlo error; with the estimate as it is 0.37


def test_several_arms_share_their_spread_where_it_may_be_one() -> None:
    samples = {k: Sample(values=v) for k, v in (("a", (0.40, 0.42)), ("b", (0.41, 0.40)), ("c", (0.38, 0.37)))}
    d = family("AP", samples, [("a", "b"), ("a", "c")])[0]
    table = np.array([samples[k].values for k in "abc"])
    residuals = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    assert d.pooled and d.degrees == 2 and precision.point(0.95, 2) == pytest.approx(4.303, abs=1e-3)
    # two-way analysis of variance: the residual mean square on (3 - 1)(2 - 1) degrees, twice, over 2 seeds
    assert d.seeds.error == pytest.approx(np.sqrt((residuals**2).sum() / 2))
    loud = samples | {"c": Sample(values=(0.1, 0.9))} | {k: Sample(values=(0.4, 0.4001 + i / 1e5)) for i, k in enumerate("ab")}
    assert not family("AP", {k: Sample(values=(*v.values, *v.values[::-1])) for k, v in loud.items()}, [("a", "b")])[0].pooled


def test_collapsed_runs_are_named_and_ordinary_ones_are_not() -> None:
    assert seed_tests.far_runs([0.30, 0.31, 0.0]) == (2,)
    rng = np.random.default_rng(5)
    values = rng.normal(0.4, 0.01, 11)
    values[[1, 4, 8]] = 0.0
    assert seed_tests.far_runs(values) == (1, 4, 8)
    assert seed_tests.far_runs([0.30, 0.0]) == () and seed_tests.far_runs([0.4, 0.4, 0.4]) == ()
    named = [bool(seed_tests.far_runs(rng.normal(0.4, 0.02, n))) for n in (3, 5, 10) for _ in range(300)]
    assert np.mean(named) < 0.025


def test_levels_of_looks_are_those_of_lan_and_demets() -> None:
    levels = sequential.look_levels((1, 2, 3, 4, 5))
    bounds = scipy.stats.norm.isf(np.array(levels) / 2)
    assert bounds == pytest.approx((4.8769, 3.3570, 2.6803, 2.2898, 2.0310), abs=2e-4)  # Reboussin et al. 2000, table 1
    assert sequential.look_levels((4,)) == pytest.approx((0.05,))


def test_looking_at_every_seed_keeps_the_error_with_a_plan_and_not_without() -> None:
    rng, counts = np.random.default_rng(6), sequential.looks_at(10)
    levels = np.array(sequential.t_levels(counts))
    values = rng.normal(0, 1, (20_000, 10))
    p = np.stack([scipy.stats.ttest_1samp(values[:, :n], 0, axis=1).pvalue for n in counts], 1)
    assert (p < levels).any(1).mean() <= 0.05 and (p < 0.05).any(1).mean() > 0.13


def test_seeds_for_a_difference_are_those_of_the_power_of_t() -> None:
    known = planning.Spreads(seed_sd=0.01)
    for target in (0.01, 0.02):
        n = planning.seeds_for(target, known)
        powers = []
        for count in (n - 1, n):
            t, shift = scipy.stats.t.ppf(0.975, count - 1), target / 0.01 * np.sqrt(count)
            powers.append(scipy.stats.nct.sf(t, count - 1, shift) + scipy.stats.nct.cdf(-t, count - 1, shift))
        assert powers[0] < 0.8 <= powers[1]
    few = planning.Spreads(seed_sd=0.001, image_error=0.01)  # however many seeds, the images' chance stays
    assert planning.seeds_for(0.01, few) is None and 5 <= planning.images_for(0.01, few, 10) <= 12
    d = _paired([0.40, 0.41, 0.43], [0.40, 0.40, 0.40])
    found = planning.advise(d, 0.01)
    assert found.step is planning.Step.SEEDS and found.seeds.low < found.seeds.guess
    assert planning.advise(d, 0.5).step is planning.Step.ENOUGH


def test_clusters_are_drawn_whole() -> None:
    groups = np.repeat(np.arange(20), 5)
    weights = draw_images(100, 3000, np.random.default_rng(7), groups)
    assert (weights.reshape(-1, 20, 5) == weights.reshape(-1, 20, 5)[:, :, :1]).all() and (weights.sum(1) == 100).all()
    values = np.random.default_rng(8).normal(0, 0.1, 20).repeat(5)
    apart, together = ((w @ values / 100).std() for w in (draw_images(100, 3000, np.random.default_rng(9)), weights))
    assert together / apart == pytest.approx(np.sqrt(5), rel=0.1)  # five frames of a video are one picture
