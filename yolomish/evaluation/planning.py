"""How many seeds and images a difference takes: before training from known spreads, after it from what was measured.

The same sums as the interval's (``stats``), turned round: the error that so many seeds and images will have, and the power
of the test that will be made with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from yolomish.evaluation.precision import POWER, Part, detectable, power, total
from yolomish.evaluation.stats import LEVEL, Difference

MOST_SEEDS = 100
MOST_IMAGES = 100  # times as many


class Step(str, Enum):
    """What brings a comparison further."""

    ENOUGH = "enough"
    SEEDS = "more seeds"
    IMAGES = "more images"
    NEITHER = "neither helps"


@dataclass(frozen=True, kw_only=True)
class Spreads:
    """What a plan rests on: the deviation of one seed's difference and the images' error of the mean, 0..1, each with the
    degrees of freedom that it was estimated with (None: taken as known)."""

    seed_sd: float
    image_error: float = 0.0
    seed_degrees: float | None = None
    image_degrees: float | None = None

    def moved(self, sure: float) -> Spreads:
        """The same with both at their confidence limit: the true ones are under it in a share ``sure`` of cases."""

        def limit(error: float, degrees: float | None) -> float:
            return error if degrees is None else Part(error=error, degrees=degrees).at_most(sure).error

        seed, image = limit(self.seed_sd, self.seed_degrees), limit(self.image_error, self.image_degrees)
        return Spreads(seed_sd=seed, image_error=image, seed_degrees=self.seed_degrees, image_degrees=self.image_degrees)


@dataclass(frozen=True, kw_only=True)
class Range:
    """The best guess of a number and its 80 % range; None: more than is sought through."""

    low: int | None
    guess: int | None
    high: int | None


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to do to find a true difference of ``target`` with chance 0.8: the ``step`` and how many ``seeds`` per arm in all
    and how many times the ``images`` it takes, each with the other as it is."""

    target: float
    step: Step
    seeds: Range
    images: Range


def spreads_of(d: Difference) -> Spreads | None:
    """What a difference measured of its two chances; None with a single seed."""
    if d.seeds is None:
        return None
    image = d.images
    return Spreads(
        seed_sd=d.seeds.error * math.sqrt(min(d.counts)),
        image_error=image.error if image else 0.0,
        seed_degrees=d.seeds.degrees,
        image_degrees=image.degrees if image else None,
    )


def _whole(spreads: Spreads, seeds: int, images: float) -> Part | None:
    image_degrees = 1e9 if spreads.image_degrees is None else spreads.image_degrees
    return total(
        (
            Part(error=spreads.seed_sd / math.sqrt(seeds), degrees=seeds - 1),
            Part(error=spreads.image_error / math.sqrt(images), degrees=image_degrees),
        )
    )


def findable(spreads: Spreads, seeds: int, *, images: float = 1.0, confidence: float = 1 - LEVEL) -> float:
    """The true difference that ``seeds`` per arm and ``images`` times the images find with chance 0.8."""
    whole = _whole(spreads, seeds, images)
    return detectable(whole.error, whole.degrees, confidence) if whole else 0.0


def _finds(spreads: Spreads, target: float, seeds: int, images: float, confidence: float) -> bool:
    whole = _whole(spreads, seeds, images)
    return whole is None or power(target / whole.error, whole.degrees, confidence) >= POWER


def seeds_for(target: float, spreads: Spreads, *, confidence: float = 1 - LEVEL) -> int | None:
    """The fewest seeds per arm, from 2 on, that find a true difference of ``target``; None where 100 do not."""
    return next((n for n in range(2, MOST_SEEDS + 1) if _finds(spreads, target, n, 1.0, confidence)), None)


def images_for(target: float, spreads: Spreads, seeds: int, *, confidence: float = 1 - LEVEL) -> int | None:
    """How many times the images find a true difference of ``target`` with so many seeds; None where 100 times do not."""
    return next((n for n in range(1, MOST_IMAGES + 1) if _finds(spreads, target, seeds, float(n), confidence)), None)


def seed_range(target: float, spreads: Spreads, *, confidence: float = 1 - LEVEL) -> Range:
    """``seeds_for`` at the spreads as estimated and at the ends of their 80 % range."""
    low, high = (seeds_for(target, spreads.moved(sure), confidence=confidence) for sure in (0.1, 0.9))
    return Range(low=low, guess=seeds_for(target, spreads, confidence=confidence), high=high)


def image_range(target: float, spreads: Spreads, seeds: int, *, confidence: float = 1 - LEVEL) -> Range:
    """``images_for`` at the spreads as estimated and at the ends of their 80 % range."""
    low, high = (images_for(target, spreads.moved(sure), seeds, confidence=confidence) for sure in (0.1, 0.9))
    return Range(low=low, guess=images_for(target, spreads, seeds, confidence=confidence), high=high)


def advise(d: Difference, target: float) -> Advice | None:
    """What brings ``d`` to find a true difference of ``target``; None with fewer than two seeds of an arm.

    Not asked of the difference that was found: whether that is real is what the verdict says.
    """
    spreads = spreads_of(d)
    if spreads is None:
        return None
    seeds = seed_range(target, spreads, confidence=d.confidence)
    images = image_range(target, spreads, min(d.counts), confidence=d.confidence)
    step = Step.NEITHER
    if d.detectable is not None and d.detectable <= target:
        step = Step.ENOUGH
    elif seeds.guess is not None:
        step = Step.SEEDS
    elif images.guess is not None:
        step = Step.IMAGES
    return Advice(target=target, step=step, seeds=seeds, images=images)
