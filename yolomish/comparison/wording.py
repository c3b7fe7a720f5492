"""The sentences of a report: what was found, how sure it is, and what it does not show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from yolomish.evaluation.stats import ONE_SEED, PairedDifference

WHERE = {"backbone": "the backbone only", "neck": "the neck and heads only", "all": "backbone, neck and heads"}
LEARNED = 0.01  # AP


def signed(value: float) -> str:
    """Four decimals with a sign, but for zero."""
    return f"{value:+.4f}" if round(value, 4) else "0.0000"


def count(number: int, noun: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def interval(d: PairedDifference) -> str:
    """The interval with its confidence, or why there is none."""
    if d.low is None or d.high is None:
        return "no interval from one seed"
    return f"{100 * d.confidence:.4g} % CI [{signed(d.low)}, {signed(d.high)}]"


def probability(p: float | None) -> str:
    """A p-value to two digits, never as zero."""
    return "-" if p is None else "<0.0001" if p < 1e-4 else f"{p:.2g}"


def chance(seeds: int, images: int | None) -> str:
    """What the interval covers: ``3 paired seeds and 87 images``."""
    words = count(seeds, "paired seed")
    return words if images is None else f"{words} and {count(images, 'image')}"


def sentence(d: PairedDifference, seeds: int, images: int | None) -> str:
    """One pair's finding with its uncertainty and the smallest difference that it could have seen."""
    word = {"A better": f"A better ({d.a})", "B better": f"B better ({d.b})"}.get(d.verdict, d.verdict)
    text = f"A = {d.a}, B = {d.b}: {word}. {d.metric} A - B = {signed(d.mean)}, {interval(d)}"
    text += f", {chance(seeds, images)}"
    text += f", p = {probability(d.p_adjusted)}." if seeds > 1 and d.p_adjusted is not None else "."
    if not any(d.per_seed):
        text += f" Their {d.metric} is equal in every seed."
    elif d.verdict == ONE_SEED:
        if d.image_error is not None:
            text += " The interval is that of these two trained models over images."
        text += " One seed cannot tell an activation from chance: use --seeds 3 or more."
    elif d.detectable is not None and d.low is not None:
        text += f" With {count(seeds, 'seed')}"
        text += f" and {count(images, 'image')}" if images is not None else ""
        text += f" differences under ±{d.mean - d.low:.4f} are noise"
        text += f"; a true one of {d.detectable:.4f} would be found four times in five."
    return text


def headline_of(
    differences: Sequence[PairedDifference], seeds: int, images: int | None, not_controlled: Sequence[str], highest: float
) -> str:
    """The finding of every pair, led by what was not controlled; ``highest`` is the best arm's AP."""
    text = " ".join(sentence(d, seeds, images) for d in differences)
    if highest < LEARNED:
        text += f" No arm reaches an AP of {LEARNED:g}: they have hardly learned to detect, so this says nothing of activations."
    return f"NOT CONTROLLED ({', '.join(not_controlled)}). {text}" if not_controlled else text


def limits_of(
    config: dict[str, Any], scope: str, seeds: int, pairs: int, epochs: int, with_images: bool, start: str
) -> tuple[str, ...]:
    """What the comparison does not show."""
    data, model = config.get("data", {}).get("format", "?"), config.get("model", {}).get("name", "?")
    lines = []
    if config:
        lines += [
            f"Other data, models or sizes: this is {model} at {config.get('image_size', '?')} px on {data} data"
            + (" (generated pictures, far easier than photographs)." if data == "shapes" else "."),
            f"Other places for the activation: here it changes in {WHERE.get(scope, scope)}.",
            f"Longer training: every arm had {count(epochs, 'epoch')} from {start}. "
            "An activation may win early and lose late, or the reverse.",
            "Settings tuned for each activation: learning rate and the rest are shared, and may suit one arm better.",
        ]
    else:
        lines.append("Why: only detections were given, so what else differs between these detectors is not known here.")
    reach = (
        "initial weights, order of data and choice of the validation images"
        if with_images
        else ("initial weights and order of data, not the choice of the validation images")
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
    lines.append("AP50, AP75 and AP by size are shown beside AP but not corrected for being looked at: the verdict is AP's.")
    return tuple(lines)
