"""The sentences of a report: what was found, how sure it is, what differs by design, what to do next, what it does not show."""

from __future__ import annotations

from collections.abc import Sequence

from yolomish.comparison.looks import undeclared
from yolomish.comparison.render.numbers import count, equals, half_width, interval, mean_of, percent, points
from yolomish.comparison.report import Design, EightBits, InitialWeights, Report, Tuned
from yolomish.comparison.runs import Run
from yolomish.evaluation.planning import Advice, Range, Step
from yolomish.evaluation.stats import Difference, Equality, Verdict
from yolomish.types import size_text

WHERE = {"backbone": "the backbone only", "neck": "the neck and heads only", "all": "backbone, neck and heads"}
START = {
    InitialWeights.RANDOM: "random weights",
    InitialWeights.ONE_FILE: "given weights",
    InitialWeights.OWN: "given weights",
    InitialWeights.UNKNOWN: "weights that are not recorded",
}
LEARNED = 0.01  # AP


def verdict(d: Difference) -> str:
    """The verdict with the name of its arm."""
    return {Verdict.A_BETTER: f"{d.a} better", Verdict.B_BETTER: f"{d.b} better"}.get(d.verdict, d.verdict.value)


def chance(d: Difference, images: int | None, clusters: int | None, bare: bool) -> str:
    """What the interval covers: ``3 paired seeds and 87 images``."""
    noun = "file" if bare else "paired seed" if d.paired else "seed"
    same = d.counts[0] == d.counts[1]
    words = count(d.counts[0], noun) if same else f"{d.counts[0]} and {count(d.counts[1], noun)}"
    words += "" if d.paired else " per arm (not paired)" if same else " (not paired)"
    if images is None:
        return words
    return f"{words} and {count(images, 'image')}" + (f" in {count(clusters, 'cluster')}" if clusters is not None else "")


def repeats(report: Report) -> str:
    """What an arm has several of: seeds, or files where trainings are not known."""
    return "file" if report.bare else "seed"


def numbered(noun: str, values: Sequence[int]) -> str:
    """``seed 3``, ``seeds 0, 1, 2``."""
    return f"{noun}{'' if len(values) == 1 else 's'} {', '.join(map(str, values))}"


def more_trainings(report: Report) -> str:
    """How to give an arm more than one training."""
    return "give three files or more per arm" if report.bare else "use --seeds 3 or more"


def covered(report: Report, units: str) -> str:
    """What the intervals of a table cover, ``units`` being what was resampled; nothing where there are none."""
    fewest = [min(d.counts) for d in report.primary]
    several, single = max(fewest) > 1, min(fewest) == 1
    noun = repeats(report)
    if not units:
        return f"They cover {noun}s alone" + (f"; none where an arm has one {noun}." if single else ".") if several else ""
    if not several:
        return f"They cover the choice of images alone ({units}), as an arm has one {noun}."
    return f"They cover {noun}s and images together ({units}){f'; images alone where an arm has one {noun}' * single}."


def measured(d: Difference) -> str:
    """``AP +1.2 [+0.3, +2.1]``."""
    return f"{d.metric} {mean_of(d)}" + (f" {interval(d)}" if d.low is not None else ", no interval")


def sentence(d: Difference, report: Report, images: int | None) -> str:
    """One pair's finding with its uncertainty and the smallest difference that it could have seen."""
    if d.verdict is Verdict.IDENTICAL:
        return f"{d.a} - {d.b}: identical detections, image by image: nothing is compared."
    text = f"{d.a} - {d.b}: {verdict(d)}. {measured(d)}, {chance(d, images, report.clusters, report.bare)}"
    several = min(d.counts) > 1
    text += f", {equals(d.p_adjusted)}." if several and d.p_adjusted is not None else "."
    half = half_width(d)
    if d.per_seed and not any(d.per_seed) and several:
        text += f" Their {d.metric} is equal in every seed."
    elif not several:
        if d.low is not None:
            text += " The interval is that of these trained models over images."
        text += f" One training cannot tell an activation from chance: {more_trainings(report)}."
    elif half is not None:
        text += f" Differences under ±{points(half, 2)} are noise"
        if d.detectable is not None:
            text += f"; a true one of {points(d.detectable, 2)} or more would be found in at least four of five such comparisons"
        text += "."
    return text + equivalence(d)


def equivalence(d: Difference) -> str:
    """What is shown of the margin, with its p; nothing where none was asked for."""
    e = d.equivalence
    if e is None:
        return ""
    margin = points(e.margin, 2)
    words = {
        Equality.EQUIVALENT: f"Equivalent within ±{margin}, {equals(e.p)}",
        Equality.A_NOT_WORSE: f"{d.a} is not worse by {margin}, {equals(e.p_a_worse)}",
        Equality.B_NOT_WORSE: f"{d.b} is not worse by {margin}, {equals(e.p_b_worse)}",
        Equality.NOT_SHOWN: f"Not shown to be equivalent within ±{margin}, {equals(e.p)}",
    }
    return f" {words[e.finding]}."


def findings(report: Report) -> list[str]:
    """What was not controlled, the finding of every pair, and what the arms started from."""
    lines = [sentence(d, report, report.images) for d in report.primary]
    confidences = {d.confidence for d in report.primary if d.low is not None}
    if confidences:
        lines[0] = f"{report.metric} x 100, {percent(min(confidences))} intervals. {lines[0]}"
    if max(arm.mean[report.metric] for arm in report.arms) < LEARNED and report.metric == "AP":
        lines.append(
            f"No arm reaches an AP of {points(LEARNED)}: they have hardly learned to detect, so this says nothing of them."
        )
    lead = [] if report.controlled else [f"NOT CONTROLLED ({', '.join(not_controlled(report))})."]
    return [*lead, *lines, *far(report), *starts(report)]


def headline(report: Report) -> str:
    """``findings`` in one line."""
    return " ".join(findings(report))


def badges(report: Report) -> list[str]:
    """A verdict for each pair, led by NOT CONTROLLED where it is so."""
    lead = "" if report.controlled else "NOT CONTROLLED: "
    several = len(report.primary) > 1
    return [lead + (f"{d.a} - {d.b}: " if several else "") + verdict(d) for d in report.primary]


def chosen_rates(tuned: Tuned, metric: str) -> str:
    """How each arm's peak rate was chosen, and whose best is the lowest or highest that was tried."""
    text = (
        f"Every arm trains at its own peak rate, the best of {count(len(next(iter(tuned.trials.values()))), 'rate')} by mean "
        f"{metric} of {count(len(tuned.seeds), 'seed')} ({', '.join(map(str, tuned.seeds))}; other than those that judge) on "
        f"{count(tuned.held_out, 'image')}, {percent(tuned.share)} of the training images, held out for it: "
        f"{', '.join(f'{arm} {rate:g}' for arm, rate in tuned.rates.items())}. The judged runs train on all training images."
    )
    if edge := tuned.at_edge:
        text += f" A better rate may lie beyond those tried for {', '.join(edge)}: theirs is the lowest or the highest."
    return text


def not_controlled(report: Report) -> list[str]:
    """What differs between the arms, or favours one, though it should not."""
    lines = [*report.other_settings, *(f"initial kernels at seed {seed}" for seed in report.other_starts)]
    return lines + ([f"all arms start from {report.one_start}, which one activation made"] if report.one_start else [])


def far(report: Report) -> list[str]:
    """Which trainings lie far from their arm's others, and what is found without them."""
    named = [f"{name} of {arm.label}" for arm in report.arms for name in arm.far]
    if not named:
        return []
    lines = [f"Far from their arm's others: {', '.join(named)}."]
    return lines + [f"Without them, {d.a} - {d.b}: {verdict(d)}, {measured(d)}." for d in report.without_far]


def starts(report: Report) -> list[str]:
    """What the arms started from, as far as it is recorded."""
    if report.initial_weights is InitialWeights.OWN:
        listed = ", ".join(f"{arm.label} from {arm.weights or 'random weights'}" for arm in report.arms)
        return [f"The arms start from weights of their own: {listed}."]
    if report.initial_weights is InitialWeights.ONE_FILE:
        file = report.arms[0].weights
        return [f"All arms start from {file}: the activation that it was trained with has an advantage over the others."]
    if report.initial_weights is InitialWeights.RANDOM:
        return ["All arms start from random weights."]
    unknown = dict.fromkeys(run.arm for run in report.runs if _unrecorded(run))
    return [f"What {' and '.join(unknown)} started from is not recorded."] if unknown else []


def _unrecorded(run: Run) -> bool:
    return run.config is not None and run.start.weights is None


def left_out(design: Design) -> list[str]:
    """Which given runs have no counterpart."""
    return [
        f"Left out of {label}: {numbered('seed', seeds)}, which another arm lacks." for label, seeds in design.left_out.items()
    ]


def looks(report: Report) -> list[str]:
    """How often this comparison was looked at, and what that does to its error."""
    taken = report.design.looks
    if not taken:
        return []
    last, stray = taken[-1], undeclared(taken)
    listed = ", ".join((*(str(look.seeds) for look in taken[:-1]), count(last.seeds, "seed")))
    text = f"Looks taken: {len(taken)} (at {listed})"
    if last.most_seeds and not stray:
        plan = f"of a sequence to at most {last.most_seeds} seeds, whose looks err in 5 % of cases together"
        return [f"{text} {plan}; this one in {percent(last.level)}."]
    if len(taken) > 1:
        text += (
            ": the earlier ones were not declared, so a difference shows by chance in more than 5 % of cases; use --until-decided"
        )
    return [text + "."]


def declared(report: Report) -> list[str]:
    """What a reader must know of how the runs were made and paired."""
    design = report.design
    lines = ["A/A: the arms are one activation at different seeds, so any difference is chance."] if design.own_seeds else []
    lines += [chosen_rates(design.tuned, report.metric)] if design.tuned else []
    lines += looks(report) + left_out(design)
    if not report.paired and not design.own_seeds and not report.bare:
        lines.append("The arms share no seeds, so they are not paired (Welch's test).")
    if design.trained_on:
        lines.append(
            "Trained on different data: " + ", ".join(f"{arm} on {data}" for arm, data in design.trained_on.items()) + "."
        )
    if report.bare:
        lines.append("Some arms are bare detections: what else differs between the arms is not known, and files are not paired.")
        lacking = [f"{arm.label} {arm.lacking:g}" for arm in report.arms if arm.lacking is not None]
        lines.append(f"Images with objects and no detection, of {report.images:,}: {', '.join(lacking)}." if lacking else "")
    lines += report.notes
    if report.mixed_machines:
        lines.append("The runs were made with different devices or versions: their training times are not comparable.")
    return [line for line in lines if line]


def range_text(found: Range, unit: str) -> str:
    """``6 seeds per arm (5 to 21)``; open ends are said in words."""
    if found.low is None:
        return f"more than 100 {unit}"
    low, high = str(found.low), "more than 100" if found.high is None else str(found.high)
    guess = "more than 100" if found.guess is None else str(found.guess)
    return f"{guess} {unit}" + (f" ({low} to {high})" if low != high else "")


def advice(found: Advice, d: Difference) -> str:
    """What to do to find a true difference of the target, with its 80 % range."""
    target, here = points(found.target, 2), min(d.counts)
    seeds, images = range_text(found.seeds, "seeds per arm"), range_text(found.images, "times the images")
    head = f"{d.a} - {d.b}: to find a true difference of {target} in four of five comparisons,"
    return {
        Step.ENOUGH: f"{head} this is enough: more seeds or images are not needed.",
        Step.SEEDS: f"{head} train more seeds: about {seeds}, where {here} are here; or take {images} at {here} seeds.",
        Step.IMAGES: f"{head} take more validation images, about {images}: more seeds alone do not do it ({seeds}).",
        Step.NEITHER: f"{head} neither more seeds ({seeds}) nor more images ({images}) help within reason.",
    }[found.step]


def eight_bits(found: EightBits) -> list[str]:
    """For each pair, whether one arm's AP stands 8 bits better than the other's."""

    def kept(d: Difference) -> str:
        winner = {Verdict.A_BETTER: d.a, Verdict.B_BETTER: d.b}.get(d.verdict)
        said = f"{winner} keeps more of its AP" if winner else verdict(d)
        return f"{d.a} - {d.b}: {said}, {mean_of(d)}" + (f" {interval(d)}." if d.low is not None else ", no interval.")

    return [kept(d) for d in found.differences]


def next_steps(report: Report) -> list[str]:
    """What brings each of AP's differences further."""
    if report.fewest < 2:
        return [f"From one {repeats(report)} per arm, nothing can be planned: {more_trainings(report)}."]
    judged = [d for d in report.primary if d.verdict is not Verdict.IDENTICAL and d.seeds is not None]
    lines = [advice(found, d) for found, d in zip(report.advice, judged, strict=True)]
    if report.fewest == 2:
        lines.append("Two seeds hardly show their own spread: these ranges are wide, and a third seed narrows them most.")
    return lines


def limits(report: Report) -> list[str]:
    """What the comparison does not show."""
    config, pairs = report.config, len(report.primary)
    if config:
        where = WHERE.get(report.design.scope, f"{report.design.scope} only")
        if report.metric != "AP" and report.design.scope in WHERE:
            where = "every layer"
        tuned = "all but the peak learning rate are" if report.design.tuned else "learning rate and the rest are"
        shapes, size = config["data"]["format"] == "shapes", size_text(report.runs[0].trained().image_size)
        lines = [
            f"Other data, models or sizes: this is {config['model']['name']} at {size} px on "
            f"{config['data']['format']} data{' (generated pictures, far easier than photographs)' if shapes else ''}.",
            f"Other places for the activation: here it changes in {where}.",
            f"Longer training: every arm had {count(max(len(run.epochs) for run in report.runs), 'epoch')} from "
            f"{START[report.initial_weights]}. An activation may win early and lose late, or the reverse.",
            f"Settings tuned for each activation: {tuned} shared, and may suit one arm better.",
        ]
    else:
        lines = ["Why: only detections were given, so what else differs between these detectors is not known here."]
    reach = "what differs between these files" if report.bare else "initial weights and order of data"
    own, rest = "the choice of the validation images", "that of the training images"
    if report.fewest == 1:
        beyond = f"{own}, not {reach} or {rest}" if report.images is not None else ""
    else:
        beyond = f"{reach}, not {own} or {rest}" if report.images is None else f"{reach} and {own}, not {rest}"
    beyond = f": the interval covers {beyond}" if beyond else ", and there is no interval"
    lines += [
        f"Anything beyond {count(report.fewest, repeats(report) if report.bare else 'training')} per arm{beyond}.",
        "Speed elsewhere: times and memory are of this device, size and software only.",
    ]
    if 1 < report.fewest < 5:
        lines.append(
            f"Normality: with {report.fewest} seeds the t interval rests on differences being about normal"
            + (
                f"; the sign-flip test, which does not, cannot give less than p = {2 / 2**report.fewest:.2g}."
                if report.paired
                else "."
            )
        )
    if pairs > 1:
        lines.append(
            f"One difference by itself: {pairs} pairs are judged together, each at a level of 5 % over {pairs} (Bonferroni)."
        )
    beside = {"AP": "AP50, AP75 and AP by size are", "top1": "top5 is"}[report.metric]
    lines.append(
        f"{beside} shown beside {report.metric} but not corrected for being looked at: the verdict is {report.metric}'s."
    )
    return lines
