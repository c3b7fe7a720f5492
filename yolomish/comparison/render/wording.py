"""The sentences of a report: what was found, how sure it is, what differs by design, and what it does not show."""

from __future__ import annotations

from collections.abc import Sequence

from yolomish.comparison.report import Design, InitialWeights, Pairing, Report, Tuned
from yolomish.comparison.runs import Run
from yolomish.evaluation.stats import PairedDifference, Verdict
from yolomish.types import size_text

WHERE = {"backbone": "the backbone only", "neck": "the neck and heads only", "all": "backbone, neck and heads"}
START = {
    InitialWeights.RANDOM: "random weights",
    InitialWeights.ONE_FILE: "given weights",
    InitialWeights.OWN: "given weights",
    InitialWeights.UNKNOWN: "weights that are not recorded",
}
LEARNED = 0.01  # AP
NONE = "-"  # where a number cannot be had


def signed(value: float) -> str:
    """Four decimals with a sign, but for zero."""
    return f"{value:+.4f}" if round(value, 4) else "0.0000"


def count(number: int, noun: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def span(low: float, high: float) -> str:
    """Two ends of an interval."""
    return f"[{signed(low)}, {signed(high)}]"


def interval(d: PairedDifference) -> str:
    """The interval with its confidence, or why there is none."""
    if d.low is None or d.high is None:
        return "no interval from one seed"
    return f"{100 * d.confidence:.4g} % CI {span(d.low, d.high)}"


def probability(p: float | None) -> str:
    """A p-value to two digits, never as zero."""
    return NONE if p is None else "<0.0001" if p < 1e-4 else f"{p:.2g}"


def chance(seeds: int, images: int | None) -> str:
    """What the interval covers: ``3 paired seeds and 87 images``."""
    words = count(seeds, "paired seed")
    return words if images is None else f"{words} and {count(images, 'image')}"


def sentence(d: PairedDifference, images: int | None) -> str:
    """One pair's finding with its uncertainty and the smallest difference that it could have seen."""
    seeds = len(d.per_seed)
    named = {Verdict.A_BETTER: f"A better ({d.a})", Verdict.B_BETTER: f"B better ({d.b})"}
    text = f"A = {d.a}, B = {d.b}: {named.get(d.verdict, d.verdict.value)}. {d.metric} A - B = {signed(d.mean)}, {interval(d)}"
    text += f", {chance(seeds, images)}"
    text += f", p = {probability(d.p_adjusted)}." if seeds > 1 and d.p_adjusted is not None else "."
    if not any(d.per_seed):
        text += f" Their {d.metric} is equal in every seed."
    elif d.verdict is Verdict.ONE_SEED:
        if d.image_error is not None:
            text += " The interval is that of these two trained models over images."
        text += " One seed cannot tell an activation from chance: use --seeds 3 or more."
    elif d.detectable is not None and d.low is not None:
        text += f" With {count(seeds, 'seed')}"
        text += f" and {count(images, 'image')}" if images is not None else ""
        text += f" differences under ±{d.mean - d.low:.4f} are noise"
        text += f"; a true one of {d.detectable:.4f} would be found four times in five."
    return text


def _findings(differences: Sequence[PairedDifference], images: int | None, highest: float) -> str:
    """The finding of every pair; ``highest`` is the best arm's AP, or a classifier's top-1."""
    text = " ".join(sentence(d, images) for d in differences)
    if highest < LEARNED and any(d.metric == "AP" for d in differences):
        text += f" No arm reaches an AP of {LEARNED:g}: they have hardly learned to detect, so this says nothing of activations."
    return text


def headline(report: Report) -> str:
    """The finding of every pair, led by what was not controlled."""
    text = _findings(report.primary, report.images, max(arm.mean[report.metric] for arm in report.arms))
    return text if report.controlled else f"NOT CONTROLLED ({', '.join(not_controlled(report))}). {text}"


def badge(report: Report) -> str:
    """The first pair's verdict, led by NOT CONTROLLED where it is so."""
    return report.verdict.value if report.controlled else f"NOT CONTROLLED: {report.verdict.value}"


def tuned_headline(tuned: Tuned) -> str:
    """The finding of every pair at each arm's best rate."""
    return _findings(tuned.differences, tuned.images, max(max(aps.values()) for aps in tuned.trials.values()))


def not_controlled(report: Report) -> list[str]:
    """What differs between the arms though it should not."""
    return [*report.other_settings, *(f"initial kernels at seed {seed}" for seed in report.other_starts)]


def left_out(design: Design) -> list[str]:
    """Which given runs have no counterpart."""
    lines = [
        f"Left out of {label}: seeds {', '.join(map(str, seeds))}, which another arm lacks."
        for label, seeds in design.left_out.items()
    ]
    return lines + [
        f"Left out of {label}: its last {count(number, 'run')}, as another arm has no more."
        for label, number in design.surplus.items()
    ]


def declared(report: Report) -> list[str]:
    """What a reader must know of how the runs were made and paired."""
    design = report.design
    lines = ["A/A: the arms are one activation at different seeds, so any difference is chance."] if design.own_seeds else []
    lines += left_out(design)
    if design.pairing is Pairing.IN_ORDER and not design.own_seeds:
        lines.append("The arms share no seeds: they are paired in the order given.")
    lines += _starts(report)
    if report.bare:
        lines.append("Some arms are bare detections: whether anything but the activation differs between them is not known.")
    if report.mixed_machines:
        lines.append("The runs were made with different devices or versions: their training times are not comparable.")
    return lines


def _starts(report: Report) -> list[str]:
    if report.initial_weights is InitialWeights.OWN:
        listed = ", ".join(f"{arm.label} from {arm.weights or 'random weights'}" for arm in report.arms)
        return [f"The arms start from weights of their own: {listed}."]
    if report.initial_weights is InitialWeights.ONE_FILE:
        file = report.arms[0].weights
        return [f"All arms start from {file}: the activation that it was trained with has an advantage over the others."]
    unknown = dict.fromkeys(run.arm for run in report.runs if _unrecorded(run))
    return [f"What {' and '.join(unknown)} started from is not recorded."] if unknown else []


def _unrecorded(run: Run) -> bool:
    return run.config is not None and run.start.weights is None


def limits(report: Report) -> list[str]:
    """What the comparison does not show."""
    config, seeds, pairs = report.config, len(report.seeds), len(report.arms) - 1
    if config:
        where = WHERE.get(report.design.scope, f"{report.design.scope} only")
        if report.runs[0].task == "classify" and report.design.scope in WHERE:
            where = "every layer"
        shapes, size = config["data"]["format"] == "shapes", size_text(report.runs[0].trained().image_size)
        lines = [
            f"Other data, models or sizes: this is {config['model']['name']} at {size} px on "
            f"{config['data']['format']} data{' (generated pictures, far easier than photographs)' if shapes else ''}.",
            f"Other places for the activation: here it changes in {where}.",
            f"Longer training: every arm had {count(max(len(run.epochs) for run in report.runs), 'epoch')} from "
            f"{START[report.initial_weights]}. An activation may win early and lose late, or the reverse.",
            "Settings tuned for each activation: learning rate and the rest are shared, and may suit one arm better.",
        ]
    else:
        lines = ["Why: only detections were given, so what else differs between these detectors is not known here."]
    reach = (
        "initial weights and order of data, not the choice of the validation images"
        if report.images is None
        else "initial weights, order of data and choice of the validation images"
    )
    lines += [
        f"Anything beyond {count(seeds, 'seed')}: the interval covers {reach}, not the choice of the training images.",
        "Speed elsewhere: times and memory are of this device, size and software only.",
    ]
    if 1 < seeds < 5:
        lines.append(
            f"Normality: with {seeds} seeds the t interval rests on differences being about normal; the sign-flip test, which "
            f"does not, cannot give less than p = {2 / 2**seeds:.2g}."
        )
    if pairs > 1:
        lines.append(
            f"A ranking of all arms: {pairs} arms are each held against the first, corrected for {pairs} looks (Holm); "
            "the others are not held against each other."
        )
    beside = {"AP": "AP50, AP75 and AP by size are", "top1": "top5 is"}[report.metric]
    lines.append(
        f"{beside} shown beside {report.metric} but not corrected for being looked at: the verdict is {report.metric}'s."
    )
    return lines
