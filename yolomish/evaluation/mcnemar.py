"""Two classifiers on the same images: McNemar's exact test (1947) of who is right where the other is wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """``only_a`` images on which A alone is right, ``only_b`` on which B alone is, at one seed; two-sided ``p`` of an even chance
    for each of them, 1 where there is none."""

    a: str
    b: str
    seed: int
    only_a: int
    only_b: int
    p: float


def mcnemar(a: str, b: str, seed: int, a_right: np.ndarray, b_right: np.ndarray) -> McNemar:
    """The exact test of two models from whether each is right on each image, (I,) bool in equal order."""
    from scipy.stats import binomtest  # late: scipy.stats takes half a second to import

    only_a, only_b = int((a_right & ~b_right).sum()), int((b_right & ~a_right).sum())
    p = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return McNemar(a=a, b=b, seed=seed, only_a=only_a, only_b=only_b, p=float(p))
