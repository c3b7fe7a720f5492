"""How often is a comparison right? Intervals, verdicts, promised power, pools, margins and looks, counted where truth is known.

    PYTHONPATH=tests python benchmarks/coverage.py --experiments 1000

A run's metric is a mean over images: its seed's chance, what an image adds for the arm at all seeds, and what it adds for
one run. The last table has AP itself, of detectors of known quality on drawn images (``tests/reference/detections.py``).
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from common import report
from reference.detections import Images

from yolomish.evaluation.precision import power
from yolomish.evaluation.resample import draw_images, resampled_ap, summarise
from yolomish.evaluation.seed_tests import far_runs
from yolomish.evaluation.sequential import looks_at, t_levels
from yolomish.evaluation.stats import Difference, Equality, Sample, Verdict, difference, family, judged

RESAMPLES = 200
SEED_SD = 0.01  # of a run's AP; images' and runs' own parts are about as large at 100 images
SHARED_SD, OWN_SD = 0.1, 0.1  # of one image
DECIDED = (Verdict.A_BETTER, Verdict.B_BETTER)


@dataclass(frozen=True, kw_only=True)
class World:
    """What comparisons are drawn from: ``seeds`` per arm on ``images``, the shape of the seeds' chance, the first arm's over
    the second's deviation, the correlation of paired seeds, the true differences to the first arm, and the share of runs
    that collapse to 0."""

    seeds: int = 3
    images: int = 100
    shape: str = "normal"
    ratio: float = 1.0
    correlation: float = 0.0
    effects: tuple[float, ...] = (0.0, 0.0)
    collapse: float = 0.0
    images_count: bool = True

    def chance(self, rng: np.random.Generator, arms: int, seeds: int) -> np.ndarray:
        """(arms, seeds) of the seeds' chance."""
        if self.seeds == 1:  # the interval is that of two given models over images
            return np.zeros((arms, seeds))
        own = _standard(self.shape, rng, (arms, seeds)) * np.array([self.ratio] + [1.0] * (arms - 1))[:, None]
        shared = _standard("normal", rng, (1, seeds)) * math.sqrt(self.correlation)
        return SEED_SD * (own * math.sqrt(1 - self.correlation) + shared)

    def draw(self, rng: np.random.Generator, seeds: int = 0) -> dict[str, Sample]:
        """One comparison's samples."""
        arms, seeds = len(self.effects), seeds or self.seeds
        values = 0.4 + self.chance(rng, arms, seeds) - np.array(self.effects)[:, None]
        collapsed = rng.random((arms, seeds)) < self.collapse
        if not self.images_count:
            return {str(a): Sample(values=tuple(np.where(collapsed[a], 0.0, values[a]))) for a in range(arms)}
        shared = rng.normal(0, SHARED_SD, (arms, 1, self.images))
        rows = values[..., None] + shared + rng.normal(0, OWN_SD, (arms, seeds, self.images))
        rows[collapsed] = 0.0
        weights = draw_images(self.images, RESAMPLES, rng).T / self.images
        return {str(a): Sample(values=tuple(rows[a].mean(1).tolist()), resampled=rows[a] @ weights) for a in range(arms)}


def _standard(shape: str, rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """Chance of mean 0 and deviation 1."""
    if shape == "t3":
        return rng.standard_t(3, size) / math.sqrt(3)
    if shape == "lognormal":
        raw = rng.lognormal(0, 0.75, size)
        return (raw - math.exp(0.75**2 / 2)) / math.sqrt((math.exp(0.75**2) - 1) * math.exp(0.75**2))
    return rng.normal(0, 1, size)


def share(hits: list[bool]) -> str:
    """A share with its Monte-Carlo standard error."""
    p = float(np.mean(hits))
    return f"{p:.1%} ± {math.sqrt(max(p * (1 - p), 1e-9) / len(hits)):.1%}"


def pair(samples: dict[str, Sample], world: World, *, paired: bool) -> Difference:
    """The first arm minus the second."""
    units = world.images if world.images_count else None
    return difference("AP", "0", "1", samples["0"], samples["1"], paired=paired, units=units)


def coverage(experiments: int, rng: np.random.Generator) -> Iterator[tuple[str, ...]]:
    """How often the 95 % interval holds the true difference."""
    worlds = [World(seeds=1, images=n) for n in (5, 10, 20, 100, 300)]
    worlds += [World(seeds=n, images=5) for n in (2, 3)] + [World(seeds=3, images=20)]
    worlds += [World(seeds=n) for n in (2, 3, 5, 10)] + [World(seeds=5, images=300)]
    worlds += [World(seeds=n, shape=shape) for shape in ("t3", "lognormal") for n in (2, 3, 5, 10)]
    worlds += [World(seeds=n, ratio=4) for n in (2, 3, 5, 10)]
    worlds += [World(seeds=n, correlation=c) for c in (0.5, 0.9) for n in (3, 5)]
    for world in worlds:
        hits: dict[bool, list[bool]] = {True: [], False: []}
        for _ in range(experiments):
            samples = world.draw(rng)
            for paired in hits:
                d = pair(samples, world, paired=paired)
                hits[paired].append(d.low <= 0 <= d.high)
        cells = (str(world.seeds), str(world.images), world.shape, f"{world.ratio:g}:1", f"{world.correlation:g}")
        unpaired = share(hits[False]) if world.seeds > 1 and not world.correlation else "-"
        yield (*cells, share(hits[True]), unpaired)


def collapses(experiments: int, rng: np.random.Generator) -> Iterator[tuple[str, ...]]:
    """How often equals of which some runs collapse are told apart, by the plain test and by one that must hold without them."""
    for seeds, collapse in ((5, 0.1), (11, 0.1), (11, 0.27)):
        world = World(seeds=seeds, collapse=collapse, images_count=False)
        one_sided = World(seeds=seeds, images_count=False)
        plain: list[bool] = []
        agreed: list[bool] = []
        planted: list[bool] = []
        for _ in range(experiments):
            samples = world.draw(rng)
            d = pair(samples, world, paired=True)
            plain.append(d.verdict in DECIDED)
            agreed.append(plain[-1] and _without_far(samples).verdict is d.verdict)
            samples = one_sided.draw(rng)
            count = round(collapse * seeds)
            samples["0"] = Sample(values=(0.0,) * count + samples["0"].values[count:])
            d = pair(samples, world, paired=True)
            planted.append(d.verdict in DECIDED and _without_far(samples).verdict is d.verdict)
        yield str(seeds), f"{collapse:.0%}", share(plain), share(agreed), share(planted)


def _without_far(samples: dict[str, Sample]) -> Difference:
    gone = set(far_runs(samples["0"].values)) | set(far_runs(samples["1"].values))
    kept = {k: Sample(values=tuple(v for i, v in enumerate(s.values) if i not in gone)) for k, s in samples.items()}
    return difference("AP", "0", "1", kept["0"], kept["1"])


def promises(experiments: int, rng: np.random.Generator) -> Iterator[tuple[str, ...]]:
    """How often a difference as large as the report says is found with chance 0.8 or more, the true errors being known."""
    for seeds, images in ((3, 100), (5, 100), (10, 100), (3, 20)):
        world = World(seeds=seeds, images=images)
        true = math.hypot(*(math.sqrt(2) * v for v in (SEED_SD / math.sqrt(seeds), SHARED_SD / 10 * math.sqrt(100 / images))))
        true = math.hypot(true, math.sqrt(2 / seeds / images) * OWN_SD)
        kept: list[bool] = []
        for _ in range(experiments):
            d = pair(world.draw(rng), world, paired=True)
            kept.append(power((d.detectable or 0) / true, d.degrees, d.confidence) >= 0.8)
        yield str(seeds), str(images), share(kept)


def pools(experiments: int, rng: np.random.Generator) -> Iterator[tuple[str, ...]]:
    """The error of all pairs of equal arms together, and the power for an arm that is 0.05 worse, with and without the pool."""
    for arms, seeds, ratio in ((3, 2, 1.0), (3, 3, 1.0), (5, 3, 1.0), (3, 2, 4.0), (3, 5, 4.0)):
        names = [(str(a), str(b)) for a in range(arms) for b in range(a + 1, arms)]
        null = World(seeds=seeds, ratio=ratio, effects=(0.0,) * arms, images_count=False)
        shift = World(seeds=seeds, ratio=ratio, effects=(*(0.0,) * (arms - 1), 0.05), images_count=False)
        erred: list[bool] = []
        pooled: list[bool] = []
        power_with: list[bool] = []
        power_without: list[bool] = []
        for _ in range(experiments):
            found = family("AP", null.draw(rng), names)
            erred.append(any(d.verdict in DECIDED for d in found))
            pooled.append(found[0].pooled)
            samples = shift.draw(rng)
            last = str(arms - 1)
            power_with.append(family("AP", samples, names)[names.index(("0", last))].verdict in DECIDED)
            alone = difference("AP", "0", last, samples["0"], samples[last])
            power_without.append(judged(alone, pairs=len(names)).verdict in DECIDED)
        yield str(arms), str(seeds), f"{ratio:g}:1", share(pooled), share(erred), share(power_with), share(power_without)


def rules(experiments: int, rng: np.random.Generator) -> Iterator[tuple[str, ...]]:
    """What other rules would err: a winner by P(A > B) >= 0.75, equivalence where the true difference is just the margin."""
    for seeds in (3, 5, 10):
        world = World(seeds=seeds, images_count=False)
        winner: list[bool] = []
        equal: list[bool] = []
        for _ in range(experiments):
            winner.append(not 0.25 < pair(world.draw(rng), world, paired=True).a_ahead < 0.75)
            edge = World(seeds=seeds, effects=(0.0, 0.02), images_count=False).draw(rng)
            e = family("AP", edge, [("0", "1")], margin=0.02)[0].equivalence
            equal.append(e is not None and e.finding is Equality.EQUIVALENT)
        yield str(seeds), share(winner), share(equal)


def sequences(experiments: int, rng: np.random.Generator) -> Iterator[tuple[str, ...]]:
    """Looking at every seed from 3 on: errors without a plan and with the declared levels, and what the plan costs and finds."""
    for most, images_count in ((5, False), (10, False), (10, True)):
        counts = looks_at(most)
        levels = t_levels(counts)
        naive: list[bool] = []
        planned: list[bool] = []
        found: list[bool] = []
        fixed: list[bool] = []
        taken: list[int] = []
        for _ in range(experiments):
            null = _looks(World(seeds=most, images_count=images_count), counts, rng)
            naive.append(any(d.p < 0.05 for d in null))
            planned.append(any(d.p < level for d, level in zip(null, levels, strict=True)))
            real = _looks(World(seeds=most, images_count=images_count, effects=(0.0, 0.015)), counts, rng)
            stops = [n for n, d, level in zip(counts, real, levels, strict=True) if d.p < level]
            found.append(bool(stops))
            fixed.append(real[-1].p < 0.05)
            taken.append(stops[0] if stops else most)
        images = "100" if images_count else "not counted"
        yield str(most), images, share(naive), share(planned), share(found), share(fixed), f"{np.mean(taken):.1f}"


def _looks(world: World, counts: tuple[int, ...], rng: np.random.Generator) -> list[Difference]:
    samples = world.draw(rng)

    def first(sample: Sample, n: int) -> Sample:
        return Sample(values=sample.values[:n], resampled=sample.resampled[:n] if sample.resampled is not None else None)

    return [pair({k: first(s, n) for k, s in samples.items()}, world, paired=True) for n in counts]


def of_ap(experiments: int, rng: np.random.Generator) -> Iterator[tuple[str, ...]]:
    """Coverage for AP itself: two detectors whose quality has a deviation over seeds."""
    for seeds, images, spread in ((1, 10, 0.0), (1, 50, 0.0), (1, 300, 0.0), (3, 20, 0.1), (3, 100, 0.1), (5, 100, 0.1)):
        truth = float(np.mean([_detected(1, images, spread, 1, rng)[0, 0] for _ in range(4 * experiments)]))
        hits: list[bool] = []
        for _ in range(experiments):
            values = _detected(seeds, images, spread, RESAMPLES, rng)
            first = Sample(values=tuple(values[:, 0].tolist()), resampled=values[:, 1:])
            nothing = Sample(values=(0.0,) * seeds, resampled=np.zeros_like(values[:, 1:]))
            d = difference("AP", "0", "1", first, nothing, units=images)
            hits.append(d.low <= truth <= d.high)
        yield str(seeds), str(images), f"{spread:g}", f"{truth:.4f}", share(hits)


def _detected(seeds: int, images: int, spread: float, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """(S, 1 + R) AP differences; first the images as drawn."""
    drawn = Images(images, rng)
    weights = np.concatenate((np.ones((1, images), np.int32), draw_images(images, resamples, rng)))
    rows = []
    for _ in range(seeds):
        a, b = (
            summarise(resampled_ap(drawn.detect(quality + rng.normal(0, spread), rng), weights, threads=1))[:, 0]
            for quality in (0.9, 0.7)
        )
        rows.append(a - b)
    return np.stack(rows)


Part = Callable[[int, np.random.Generator], Iterator[tuple[str, ...]]]
PARTS: dict[str, tuple[str, Part, float, tuple[str, ...]]] = {
    "coverage": (
        "Intervals of 95 %: how often they hold the true difference",
        coverage,
        1,
        ("seeds", "images", "seeds' chance", "spreads", "correlation", "paired", "not paired (Welch)"),
    ),
    "collapses": (
        "Collapsed runs: false verdicts",
        collapses,
        1,
        ("seeds", "runs that collapse", "plain test", "held also without far runs", "that, so many in one arm"),
    ),
    "promises": (
        "The stated detectable difference: reports whose power for it is at least 0.8",
        promises,
        1,
        ("seeds", "images", "reports"),
    ),
    "pools": (
        "All pairs of several arms, seeds alone",
        pools,
        1,
        ("arms", "seeds", "spreads", "pooled", "any false verdict", "power, pool", "power, no pool"),
    ),
    "rules": ("Other rules", rules, 1, ("seeds", "P(A > B) >= 0.75 names a winner", "equivalent, at the margin itself")),
    "sequences": (
        "Looking at every seed from 3 on",
        sequences,
        0.5,
        (
            "most seeds",
            "images",
            "errs, no plan",
            "errs, alpha spending",
            "finds 0.015",
            "finds it, all seeds at once",
            "seeds taken",
        ),
    ),
    "ap": (
        "AP itself: how often its 95 % interval holds the true difference",
        of_ap,
        0.3,
        ("seeds", "images", "spread", "truth", "holds"),
    ),
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=1000)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    options = parser.parse_args()
    for i, name in enumerate(options.parts):
        title, rows, scale, columns = PARTS[name]
        experiments, began = max(int(scale * options.experiments), 10), time.perf_counter()
        found = list(rows(experiments, np.random.default_rng(i)))
        notes = f"{experiments:,} comparisons a row, {RESAMPLES} resamples; ± one standard error of the count. "
        report(title, columns, found, torch.device("cpu"), notes + f"{time.perf_counter() - began:.0f} s.")
        print(flush=True)


if __name__ == "__main__":
    main()
