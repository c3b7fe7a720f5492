"""Looking more than once at a comparison that grows, without erring more often: alpha spending (Lan and DeMets 1983).

At each of the declared looks only a part of the error may be spent, little at first (O'Brien and Fleming's shape). A look
is decided where its p is under its level (Jennison and Turnbull 2000, 3.8).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize, special

from yolomish.evaluation.stats import FEWEST_SEEDS, LEVEL

T_SHARE = 0.84  # of the error that t tests may spend: with all of it, 4 to 20 looks from 3 seeds on err in 5.5 to 5.9 %
NODES = 80  # of the integration over what stayed inside the bounds
FIRST_LOOK = FEWEST_SEEDS


def looks_at(most_seeds: int) -> tuple[int, ...]:
    """The numbers of seeds at which a comparison of at most ``most_seeds`` is looked at: each from 3 on."""
    return tuple(range(FIRST_LOOK, most_seeds + 1))


def spent(share: float, level: float = LEVEL) -> float:
    """The error that may be spent when a ``share`` of all seeds is there: 4 - 4 Φ(z(1 - level/4) / √share)."""
    return float(4 * special.ndtr(-special.ndtri(1 - level / 4) / math.sqrt(share)))


def look_levels(looks: Sequence[int], level: float = LEVEL) -> tuple[float, ...]:
    """The two-sided level of each look, whose seeds are ``looks``; together they err in ``level`` of cases of no difference.

    The sum of increments that stayed inside all bounds so far is integrated by Gauss and Legendre's rule (Armitage,
    McPherson and Rowe 1969).
    """
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    places, mass = np.zeros(1), np.ones(1)  # of the sum, and the chance that it is there
    before, gone, levels = 0.0, 0.0, []
    for t in (count / looks[-1] for count in looks):
        deviation, allowed = math.sqrt(t - before), spent(t, level) - gone

        def leaving(bound: float, places: np.ndarray = places, mass: np.ndarray = mass, deviation: float = deviation) -> float:
            beyond = special.ndtr((places - bound) / deviation) + special.ndtr((-places - bound) / deviation)
            return float(mass @ beyond)

        bound = float(optimize.brentq(lambda b, out=leaving, part=allowed: out(b) - part, 0.0, 20.0, xtol=1e-10))
        levels.append(float(2 * special.ndtr(-bound / math.sqrt(t))))
        new = bound * nodes
        density = np.exp(-(((new[:, None] - places) / deviation) ** 2) / 2) / (deviation * math.sqrt(2 * math.pi))
        places, mass = new, bound * weights * (density @ mass)
        before, gone = t, gone + allowed
    return tuple(levels)


def t_levels(looks: Sequence[int], level: float = LEVEL) -> tuple[float, ...]:
    """``look_levels`` for the p of t tests, whose few degrees at early looks tie the looks together less than normal estimates
    are: 84 % of the error are spent, which then is 4.6 to 5 % (``benchmarks/coverage.py``). A single look spends all."""
    return look_levels(looks, T_SHARE * level if len(looks) > 1 else level)
