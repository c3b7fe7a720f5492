"""The report's tables as text cells: what Markdown, HTML and LaTeX print alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from yolomish.comparison.render.wording import NONE, declared, interval, probability, signed, span, tuned_headline
from yolomish.comparison.report import ArmSummary, Level, Report
from yolomish.evaluation.stats import PairedDifference

MOST_SEED_COLUMNS = 5
MOST_CLASSES = 40


@dataclass(frozen=True, kw_only=True)
class Table:
    """A titled table; ``note`` says what its numbers are."""

    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show: a table without rows may still say why."""
        return not self.rows and not self.note


def number(value: float | None, form: str = ".4f", unit: str = "") -> str:
    """A number, a dash where there is none."""
    return NONE if value is None else format(value, form) + unit


def spread(level: Level | None) -> str:
    """Mean ± sd, the mean alone with one seed, a dash where there is nothing."""
    return NONE if level is None else number(level.mean) + (f" ± {level.sd:.4f}" if level.sd is not None else "")


def shown_label(report: Report, index: int) -> str:
    """``A = mish`` where there are two arms."""
    label = report.arms[index].label
    return f"{'AB'[index]} = {label}" if len(report.arms) == 2 else label


def shown_path(path: Path, folder: Path) -> str:
    """The path from the comparison's folder where it lies in it, else as it is."""
    try:
        return str(path.resolve().relative_to(folder.resolve()))
    except ValueError:
        return str(path)


def results(report: Report) -> Table:
    """The table of a paper: a row per arm."""
    seeds = "mean ± standard deviation over seeds" if len(report.seeds) > 1 else "one seed, so no spread"
    note = f"Validation, last checkpoint, averaged weights, 0 to 1: {seeds}." + (
        " COCO's metrics." if report.metric == "AP" else ""
    )
    best = any(arm.best_ap is not None for arm in report.arms)
    if best:
        note += f" Best {report.metric} is that of each run's best epoch, chosen on these same images and so too high: secondary."
    shown = list(dict.fromkeys(m for arm in report.arms for m in arm.levels))

    def row(i: int, arm: ArmSummary) -> tuple[str, ...]:
        last = (number(arm.best_ap),) if best else ()
        cells = (spread(arm.levels.get(m)) for m in shown)
        return (shown_label(report, i), f"{arm.activation} / {arm.neck_activation}", *cells, *last)

    places = "backbone / neck" if report.metric == "AP" else "stem / rest"
    head = ("arm", places, *shown, *((f"best {report.metric}",) if best else ()))
    return Table(title="Results", note=note, head=head, rows=tuple(row(i, arm) for i, arm in enumerate(report.arms)))


def differences(report: Report) -> Table:
    """A row per pair and metric."""
    chance = "seeds and images" if report.images is not None else "seeds"
    note = f"The first arm minus the other. A positive number favours the first arm. Intervals and p cover {chance} together"
    note += f" ({report.resamples:,} resamples of {report.images:,} images)." if report.images is not None else "."
    if len(report.seeds) == 1:
        note = "The first arm minus the other, one trained model each: the interval is the images' chance alone."
    seeds = report.seeds if len(report.seeds) <= MOST_SEED_COLUMNS else ()

    def row(d: PairedDifference) -> tuple[str, ...]:
        each = [signed(v) for v in d.per_seed] if seeds else []
        return (f"{d.a} - {d.b}", d.metric, *each, signed(d.mean), interval(d), probability(d.p_adjusted), d.verdict.value)

    head = ("pair", "metric", *(f"seed {s}" for s in seeds), "mean", "interval", "p (Holm)", "verdict")
    return Table(title="Paired differences", note=note, head=head, rows=tuple(row(d) for d in report.differences))


LOOKS: dict[str, Callable[[PairedDifference], str]] = {
    "standard error from seeds": lambda d: number(d.seed_error),
    "standard error from images": lambda d: number(d.image_error),
    "true difference found 4 times in 5": lambda d: number(d.detectable),
    "resamples of images with A ahead": lambda d: number(d.above_zero, ".1%"),
    "bootstrap over seeds then images, 95 %": lambda d: span(*d.bootstrap) if d.bootstrap else NONE,
    "p, paired t over seeds": lambda d: probability(d.p_t),
    "p, exact sign flips over seeds": lambda d: probability(d.p_signs),
    "p, exact Wilcoxon over seeds": lambda d: probability(d.p_ranks),
    "Cohen's d [95 %]": lambda d: f"{d.effect.d:.2f} [{d.effect.low:.2f}, {d.effect.high:.2f}]" if d.effect else NONE,
}


def tests(report: Report) -> Table:
    """Other looks at AP's difference: a column per pair; what cannot be had for any pair is left out."""
    found = report.primary
    rows = [(name, *map(look, found)) for name, look in LOOKS.items()]
    rows = [row for row in rows if set(row[1:]) != {NONE}]
    note = "Tests over seeds take the validation images as given. Percentiles of a bootstrap over few seeds are too narrow."
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
            *(signed(d.mean), interval(d), probability(d.p_adjusted)),
        )
        for d in sorted(report.class_differences, key=lambda d: -abs(d.mean))[:MOST_CLASSES]
    ]
    rest = len(report.class_differences) - len(rows)
    note = "Largest differences first; p and intervals are corrected over the classes (Holm)."
    note += f" {rest} more are in report.json." if rest else ""
    head = ("class", "pair", "A", "B", "A - B", "interval", "p (Holm)")
    return Table(title=f"{report.metric} by class", note=note if rows else "", head=head, rows=tuple(rows))


def cost(report: Report) -> Table:
    """Training step, memory and inference of each arm; empty where neither was measured."""
    if not report.speed and all(arm.step_ms is None for arm in report.arms):
        return Table(title="Cost", note="", head=(), rows=())
    speed = {s.arm: s for s in report.speed}
    first = report.arms[0].step_ms

    def row(i: int, arm: ArmSummary) -> tuple[str, ...]:
        ratio = arm.step_ms / first if arm.step_ms is not None and first else None
        peak = f"{arm.peak_memory_bytes / 2**20:,.0f} MiB" if arm.peak_memory_bytes else "not measured"
        training = (number(arm.step_ms, ".1f", " ms"), number(ratio, ".2f", "x"), peak)
        s = speed.get(arm.label)
        inference = (f"{s.median_ms:.1f} ms [{s.low_ms:.1f}, {s.high_ms:.1f}]", f"{s.ratio:.2f}x") if s else (NONE, NONE)
        return (shown_label(report, i), *training, *inference)

    base = report.arms[0].label
    return Table(
        title="Cost",
        note="Training step: median of each run, mean over seeds, waiting for data left out; runs follow one another, so what "
        "else the machine did is in it. Inference: one image, float32, in turn with the other arms, median [quartiles] and "
        "median ratio. Peak memory on a GPU is the arm's own; on a CPU it is the whole process's.",
        head=("arm", "training step", f"vs {base}", "peak memory", "inference", f"vs {base}"),
        rows=tuple(row(i, arm) for i, arm in enumerate(report.arms)),
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
                numbers = (f"{values[0]:.3f}", f"{values[1]:.3g}", f"{values[2]:.1%}", f"{dead:.2%}", f"{values[3]:.2e}")
                rows.append((arm.label, part, found[0].activation, *numbers))
    head = ("arm", "part", "activation", "output mean", "variance", "saturated", "dead", "gradient")
    return Table(title="Inside the networks", note=note, head=head, rows=tuple(rows))


def tuned(report: Report) -> Table:
    """AP of every trial of a peak rate."""
    found = report.tuned
    if found is None:
        return Table(title="Best of an equal budget", note="", head=(), rows=())
    rates = list(next(iter(found.trials.values())))
    rows = ((label, *(f"{aps[rate]:.4f}" for rate in rates), f"{found.rates[label]:g}") for label, aps in found.trials.items())
    return Table(
        title="Best of an equal budget",
        note=f"{report.metric} by peak learning rate, one trial each at a seed that the comparison does not use; then every arm "
        f"at its own best, at all seeds: {tuned_headline(found)}",
        head=("arm", *(f"lr {rate}" for rate in rates), "chosen"),
        rows=tuple(rows),
    )


def runs(report: Report) -> Table:
    """A row per run."""
    names = [name for name in ("AP", "AP50", "AP75", "top1", "top5") if name in report.runs[0].metrics]
    return Table(
        title="Runs",
        note="Equal kernel hashes at a seed: the arms began from the same convolution weights.",
        head=("arm", "seed", *names, "step", "initial kernels", "folder"),
        rows=tuple(
            (
                run.arm,
                str(run.seed),
                *(number(run.metrics.get(m)) for m in names),
                number(run.step_ms, ".1f", " ms"),
                run.start.kernels[:12] or NONE,
                shown_path(run.path, report.folder),
            )
            for run in report.runs
        ),
    )


def changed(report: Report) -> Table:
    """What differs between the arms' configurations."""
    note = "Every setting in which the arms' configurations differ."
    if not report.config:
        note = "Not known: only detections were given."
    elif not report.config_difference:
        note = "Nothing: the arms' configurations are equal (an A/A comparison)."
    return Table(
        title="What differs between the arms",
        note=" ".join((note, *declared(report))),
        head=("setting", *(arm.label for arm in report.arms)),
        rows=tuple((key, *(str(v) for v in values)) for key, values in report.config_difference.items()),
    )


def surroundings(report: Report) -> Table:
    """What it ran on."""
    return Table(title="Environment", note="", head=("what", "value"), rows=tuple(report.design.environment.items()))
