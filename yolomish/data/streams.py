"""Random streams: each use of chance has its own, so that no two of them draw the same numbers."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Use(IntEnum):
    """What chance is used for. The numbers are part of every run's result: new ones are added at the end."""

    ORDER = 1
    AUGMENT = 2
    NETWORK_SIZE = 3
    ANCHORS = 4
    NOISE = 5


def stream(use: Use, seed: int, epoch: int = 0, index: int = 0) -> np.random.Generator:
    """The generator of one use, seed, epoch and index (of an image, a step, a run), independent of all others.

    The key is a ``spawn_key``: numpy pads plain seeds with zeros, so that (1, 2) and (1, 2, 0) would be one stream.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(use, epoch, index)))
