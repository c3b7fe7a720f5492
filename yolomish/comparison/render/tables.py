"""The report's tables as text cells: what Markdown, HTML and LaTeX print alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from yolomish.comparison.render import wording
from yolomish.comparison.render.numbers import (
    NONE,
    count,
    decimals,
    half_width,
    interval,
    mean_of,
    number,
    percent,
    points,
    probability,
    signed,
    span,
    spread,
)
from yolomish.comparison.report import ArmSummary, EightBitArm, Report
from yolomish.comparison.runs import Run
from yolomish.evaluation.stats import FEWEST_IMAGES, Difference

MOST_SEED_COLUMNS = 5
MOST_CLASSES = 40


@dataclass(frozen=True, kw_only=True)
class Table:
    """A titled table; ``note`` says what its numbers are, ``best`` are the cells (row, column) that stand out."""

    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: frozenset[tuple[int, int]] = frozenset()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show: a table without rows may still say why."""
        return not self.rows and not self.note


def shown_path(path: Path, folder: Path) -> str:
    """The path from the comparison's folder where it lies in it, else as it is."""
    try:
        return str(path.resolve().relative_to(folder.resolve()))
    except ValueError:
        return str(path)


def results(report: Report) -> Table:
    """The table of a paper: a row per arm, the best of each column marked."""
    what = "Given detections" if report.bare else "Validation, last checkpoint, averaged weights"
    several = wording.repeats(report)
    over = f"mean ± standard deviation over {several}s" if report.fewest > 1 else f"one {several} in an arm, so no spread"
    whose = "COCO's metrics, t" if report.metric == "AP" else "T"
    note = f"{what}, {report.metric} x 100: {over}. {whose}he best{' mean' * (report.fewest > 1)} of each in bold."
    best = any(arm.best_ap is not None for arm in report.arms)
    if best:
        note += f" Best {report.metric} is that of each run's best epoch, chosen on these same images and so too high: secondary."
    ranked = any(arm.ranks for arm in report.arms)
    if ranked:
        note += " Rank: the places that the comparison of all pairs, at 5 % together, leaves open."
    named = any(arm.activation for arm in report.arms)
    shown = list(dict.fromkeys(m for arm in report.arms for m in arm.levels))

    def row(arm: ArmSummary) -> tuple[str, ...]:
        activations = (f"{arm.activation} / {arm.neck_activation}" if arm.activation else NONE,) if named else ()
        cells = (spread(arm.levels.get(m)) for m in shown)
        rank = (
            (("{}" if arm.ranks[0] == arm.ranks[1] else "{} to {}").format(*arm.ranks) if arm.ranks else NONE,) if ranked else ()
        )
        return (arm.label, *activations, str(arm.trainings), *cells, *((points(arm.best_ap),) if best else ()), *rank)

    first = 3 if named else 2
    means = [[round(level.mean, 12) if (level := arm.levels.get(m)) else None for arm in report.arms] for m in shown]
    marked = {
        (i, first + j)
        for j, column in enumerate(means)
        for i, value in enumerate(column)
        if value is not None and value == max(found := [v for v in column if v is not None]) > min(found)
    }
    head = ("arm", *(("backbone / neck" if report.metric == "AP" else "stem / rest",) if named else ()), f"{several}s", *shown)
    head += (*((f"best {report.metric}",) if best else ()), *(("rank",) if ranked else ()))
    return Table(title="Results", note=note, head=head, rows=tuple(map(row, report.arms)), best=frozenset(marked))


def differences(report: Report) -> Table:
    """A row per pair and metric."""
    confidence = min((d.confidence for d in report.differences), default=0.95)
    pairs = len(report.primary)
    note = f"The first arm of a pair minus the other, {report.metric} x 100; a positive number favours the first."
    if any(d.low is not None for d in report.differences):
        note += f" All intervals are {percent(confidence)}."
    if pairs > 1:
        note += f" {pairs} pairs are judged together (Bonferroni), and p is adjusted for it."
    if report.images is not None:
        units = (
            f"{report.images:,} images"
            if report.clusters is None
            else f"{report.clusters:,} clusters of {report.images:,} images"
        )
        note += f" {wording.covered(report, f'{report.resamples:,} resamples of {units}')}"
        if report.metric == "AP":
            note += f" No interval where fewer than {FEWEST_IMAGES} images hold such objects."
    else:
        note += f" {covers}" if (covers := wording.covered(report, "")) else ""
    if any(d.pooled for d in report.primary):
        note += " The arms' spreads are about equal, so that of all arms is taken for each pair."
    seeds = report.seeds if 1 < len(report.seeds) <= MOST_SEED_COLUMNS else ()

    def row(d: Difference) -> tuple[str, ...]:
        each = [signed(v, decimals(half_width(d) or d.sd)) for v in d.per_seed] if seeds else []
        cells = (mean_of(d), interval(d), probability(d.p_adjusted), wording.verdict(d))
        return (f"{d.a} - {d.b}", d.metric, *each, *cells)

    mean = "mean" if report.fewest > 1 else "difference"
    head = ("pair", "metric", *(f"seed {s}" for s in seeds), mean, "interval", "p (adjusted)" if pairs > 1 else "p", "verdict")
    return Table(title="Differences", note=note, head=head, rows=tuple(row(d) for d in report.differences))


LOOKS: dict[str, Callable[[Difference], str]] = {
    "standard error from seeds": lambda d: points(d.seeds.error if d.seeds else None, 2),
    "standard error from images": lambda d: points(d.images.error if d.images else None, 2),
    "found 4 times in 5, at least": lambda d: points(d.detectable, 2),
    "correlation of paired seeds": lambda d: number(d.correlation, ".2f"),
    "seeds' error, paired over unpaired": lambda d: number(d.pairing_gain, ".2f", "x"),
    "P(A > B), pairs of trainings": lambda d: number(d.a_ahead, ".0%") if max(d.counts) > 1 else NONE,
    "resamples of images with A ahead": lambda d: number(d.above_zero, ".1%"),
    "bootstrap over seeds then images, 95 %": lambda d: span(*d.bootstrap, 2) if d.bootstrap and max(d.counts) > 1 else NONE,
    "p, t over seeds": lambda d: probability(d.p_t),
    "p, exact sign flips over seeds": lambda d: probability(d.p_signs),
    "p, exact Wilcoxon over seeds": lambda d: probability(d.p_ranks),
    "p of equivalence (TOST)": lambda d: probability(d.equivalence.p if d.equivalence else None),
    "Cohen's d [95 %]": lambda d: f"{d.effect.d:.2f} [{d.effect.low:.2f}, {d.effect.high:.2f}]" if d.effect else NONE,
}


def tests(report: Report) -> Table:
    """Other looks at AP's difference: a column per pair; what cannot be had for any pair is left out."""
    found = report.primary
    rows = [(name, *map(look, found)) for name, look in LOOKS.items()]
    rows = [row for row in rows if set(row[1:]) != {NONE}]
    several = (
        " Tests over seeds take the validation images as given. Percentiles of a bootstrap over few seeds are too narrow; "
        "P(A > B) says how often, not how sure."
    )
    note = f"{report.metric} x 100. None of these decides." + several * any(min(d.counts) > 1 for d in found)
    head = ("what", *(f"{d.a} - {d.b}" for d in found))
    return Table(title=f"Other looks at {report.metric}", note=note if rows else "", head=head, rows=tuple(rows))


def exact(report: Report) -> Table:
    """McNemar's exact tests of classifiers."""
    note = (
        "Two trained models on the same images: how many one alone has right, and McNemar's exact p of that. It takes the models "
        "as they are: the chance of another training is not in it."
    )
    rows = ((f"{m.a} - {m.b}", str(m.seed), str(m.only_a), str(m.only_b), probability(m.p)) for m in report.mcnemar)
    head = ("pair", "seed", "A alone right", "B alone right", "p (McNemar)")
    return Table(title="Pairs of models", note=note if report.mcnemar else "", head=head, rows=tuple(rows))


def classes(report: Report) -> Table:
    """A row per class and pair."""
    arms = {arm.label: arm for arm in report.arms}
    rows = [
        (
            *(d.metric, f"{d.a} - {d.b}", *(spread(arms[label].class_levels.get(d.metric)) for label in (d.a, d.b))),
            *(mean_of(d), interval(d), probability(d.p_adjusted)),
        )
        for d in sorted(report.class_differences, key=lambda d: -abs(d.mean))[:MOST_CLASSES]
    ]
    rest = len(report.class_differences) - len(rows)
    tested = [d for d in report.class_differences if d.low is not None]
    note = f"{report.metric} x 100, largest differences first."
    note += f" Intervals are {percent(tested[0].confidence)}: {len(tested)} are judged together." if tested else ""
    note += f" No interval and no p for a class that fewer than {FEWEST_IMAGES} images hold." if report.images is not None else ""
    note += f" {rest} more are in report.json." if rest else ""
    head = ("class", "pair", "first", "other", "difference", "interval", "p (adjusted)")
    return Table(title=f"{report.metric} by class", note=note if rows else "", head=head, rows=tuple(rows))


def cost(report: Report) -> Table:
    """Training step, memory and inference of each arm, or why there are none."""
    if not report.speed and all(arm.step_ms is None for arm in report.arms):
        why = "only detections were given, which show no cost" if report.bare else "the runs' folders hold no timing.csv"
        return Table(title="Cost", note=f"Not known: {why}.", head=(), rows=())
    speed = {s.arm: s for s in report.speed}
    first = report.arms[0].step_ms

    def row(arm: ArmSummary) -> tuple[str, ...]:
        ratio = arm.step_ms / first if arm.step_ms is not None and first else None
        peak = f"{arm.peak_memory_bytes / 2**20:,.0f} MiB" if arm.peak_memory_bytes else "not measured"
        training = (number(arm.step_ms, ".1f", " ms"), number(ratio, ".2f", "x"), peak)
        s = speed.get(arm.label)
        inference = (f"{s.median_ms:.1f} ms [{s.low_ms:.1f}, {s.high_ms:.1f}]", f"{s.ratio:.2f}x") if s else (NONE, NONE)
        return (arm.label, *training, *inference)

    base = report.arms[0].label
    return Table(
        title="Cost",
        note=f"Training step: median of each run{', mean over seeds' * (len(report.seeds) != 1)}, waiting for data left out; "
        "runs follow one another, so what else the machine did is in it. Inference: one image, float32, in turn with the other "
        "arms, median [quartiles] and median ratio. Peak memory on a GPU is the arm's own; on a CPU it is the whole process's.",
        head=("arm", "training step", f"vs {base}", "peak memory", "inference", f"vs {base}"),
        rows=tuple(map(row, report.arms)),
    )


def eight_bits(report: Report) -> Table:
    """What 8 bits leave of each arm, empty where nobody asked."""
    found = report.eight_bits
    if found is None:
        return Table(title="In 8 bits", note="", head=(), rows=())
    note = (
        f"AP x 100, mean over runs, by {found.by}: convolutions in 8 bits, ranges of {count(found.images, 'training image')}. "
        "Change: 8 bits minus fp32, run by run, with its 95 % interval. Time: one image, first run, in turn, median [quartiles] "
        f"of {found.rounds} rounds; {count(found.threads, 'thread')}."
    )

    def row(arm: EightBitArm) -> tuple[str, ...]:
        times = (f"{ms[1]:.1f} ms [{ms[0]:.1f}, {ms[2]:.1f}]" for ms in (arm.fp32_ms, arm.int8_ms))
        low, middle, high = arm.speedup
        size = f"{arm.int8_bytes / 1e6:.1f} MB"
        change = (mean_of(arm.change), interval(arm.change))
        return (arm.arm, points(arm.fp32), points(arm.int8), *change, *times, f"{middle:.2f}x [{low:.2f}, {high:.2f}]", size)

    return Table(
        title="In 8 bits",
        note=" ".join((note, *wording.eight_bits(found))),
        head=("arm", "AP fp32", "AP int8", "change", "interval", "fp32", "int8", "faster", "int8 weights"),
        rows=tuple(map(row, found.arms)),
    )


def layers(report: Report) -> Table:
    """Medians over the backbone's and the other layers of each arm, or why there are none."""
    note = (
        "First seed, one batch of training images that all arms share. Saturated: inputs at which the activation's slope "
        "is under 0.01; dead: channels where it is so for every input. Gradient: the loss's over the kernel's norm. Medians "
        "over layers, dead channels on average."
    )
    if not report.layers:
        note = f"Not measured: {report.missing['layers']}." if "layers" in report.missing else ""
    rows = []
    for arm in report.arms:
        shown = {r.part: "neck and heads" if r.part in ("neck", "head") else r.part for r in report.layers}
        for part in dict.fromkeys(shown.values()):
            found = [r for r in report.layers if r.arm == arm.label and shown[r.part] == part]
            if found:
                values = [statistics.median(getattr(r, k) for r in found) for k in ("mean", "variance", "saturated", "gradient")]
                dead = statistics.fmean(r.dead for r in found)
                numbers = (f"{values[0]:.3g}", f"{values[1]:.3g}", f"{values[2]:.1%}", f"{dead:.2%}", f"{values[3]:.2e}")
                rows.append((arm.label, part, found[0].activation, *numbers))
    head = ("arm", "part", "activation", "output mean", "variance", "saturated", "dead", "gradient")
    return Table(title="Inside the networks", note=note, head=head, rows=tuple(rows))


def tuned(report: Report) -> Table:
    """AP of every trial of a peak rate, on the images held out for it."""
    found = report.design.tuned
    if found is None:
        return Table(title="Learning rates", note="", head=(), rows=())
    rates, several = list(next(iter(found.trials.values()))), len(found.seeds) > 1
    rows = (
        (
            label,
            *(" / ".join(map(points, (statistics.fmean(aps[rate]), *aps[rate]) if several else aps[rate])) for rate in rates),
            f"{found.rates[label]:g}",
        )
        for label, aps in found.trials.items()
    )
    return Table(
        title="Learning rates",
        note=f"{report.metric} x 100 by peak learning rate on the images held out{': mean / each of' if several else ','} "
        f"{wording.numbered('seed', found.seeds)}. {wording.chosen_rates(found, report.metric)}",
        head=("arm", *(f"lr {rate}" for rate in rates), "chosen"),
        rows=tuple(rows),
    )


def runs(report: Report) -> Table:
    """A row per run."""
    trained = any(run.config for run in report.runs)
    note = "Equal kernel hashes at a seed: the arms began from the same convolution weights." if trained else "Files as given."

    names = [name for name in ("AP", "AP50", "AP75", "top1", "top5") if name in report.runs[0].metrics]

    def row(run: Run) -> tuple[str, ...]:
        metrics = (points(run.metrics.get(m), 2) for m in names)
        training = (number(run.step_ms, ".1f", " ms"), run.start.kernels[:12] or NONE) if trained else ()
        seed = (str(run.config.seed) if run.config else NONE,) if trained else ()
        return (run.arm, *seed, *metrics, *training, shown_path(run.path, report.folder))

    seed, training = (("seed",), ("step", "initial kernels")) if trained else ((), ())
    head = ("arm", *seed, *names, *training, "folder" if trained else "file")
    return Table(title="Runs" if trained else "Files", note=note, head=head, rows=tuple(map(row, report.runs)))


def changed(report: Report) -> Table:
    """What differs between the arms' configurations."""
    note = "Every setting in which the arms' configurations differ."
    if not report.config:
        note = "Not known: only detections were given."
    elif not report.config_difference:
        note = "Nothing: the arms' configurations are equal (an A/A comparison)."
    return Table(
        title="What differs between the arms",
        note=" ".join((note, *wording.declared(report))),
        head=("setting", *(arm.label for arm in report.arms)),
        rows=tuple((key, *(str(v) for v in values)) for key, values in report.config_difference.items()),
    )


def surroundings(report: Report) -> Table:
    """What it ran on."""
    return Table(title="Environment", note="", head=("what", "value"), rows=tuple(report.design.environment.items()))
