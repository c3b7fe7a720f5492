"""Pictures that look alike: a perceptual hash, and a search that does not compare each with each."""

from __future__ import annotations

import cv2
import numpy as np

SIDE, BITS = 16, 256  # a hash is 16 x 16 bits
NEAR = 24  # bits in which pictures that look alike may differ
MOST_COMPARED = 4096  # hashes that one is held against for one part of it, however many share that part
FLAT = 1.0  # standard deviation, in grey levels of 0..255, below which there is nothing to recognise


def _count_by_table(words: np.ndarray) -> np.ndarray:
    """``numpy.bitwise_count`` of uint64 for numpy before 2.0."""
    ones = np.array([i.bit_count() for i in range(1 << 16)], np.uint8)
    count: np.ndarray = ones[words[..., None].view(np.uint16)].sum(-1, dtype=np.uint8)
    return count


_count = getattr(np, "bitwise_count", _count_by_table)


def perceptual_hash(image: np.ndarray) -> np.ndarray | None:
    """pHash of (H, W, 3) uint8 RGB as (4,) uint64: which of the 16 x 16 lowest DCT coefficients of the picture, grey and
    32 x 32 px, are above their median (Zauner 2010, "Implementation and benchmarking of perceptual image hash functions").

    None where the picture is of one colour: its hash would be noise.
    """
    small = cv2.cvtColor(cv2.resize(image, (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    if small.std() < FLAT:
        return None
    low = cv2.dct(small.astype(np.float32))[:SIDE, :SIDE]
    hashed: np.ndarray = np.packbits(low > np.median(low)).view(np.uint64)
    return hashed


def distances(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The number of bits (N,) in which hashes (N, 4) uint64 differ."""
    count: np.ndarray = _count(some ^ others).sum(-1, dtype=np.int64)
    return count


def alike(hashes: np.ndarray, among: np.ndarray | None = None) -> np.ndarray:
    """For each hash (N, 4) uint64 the index (N,) of one in ``among`` within ``NEAR`` bits of it, or -1.

    Without ``among`` that is an earlier one of ``hashes``. Two hashes that differ in NEAR bits are equal in one of NEAR + 1
    parts at least, so only those that share a part are compared (multi-index hashing, Norouzi et al. 2012): none is
    missed unless more than ``MOST_COMPARED`` share it.
    """
    others = hashes if among is None else among
    found: np.ndarray = np.full(len(hashes), -1)
    if not len(hashes) or not len(others):
        return found
    own, other = hashes[:, 0].copy(), others[:, 0].copy()
    for part in np.array_split(np.arange(BITS), NEAR + 1):
        keys, wanted = _part(others, part), _part(hashes, part)
        order = keys.argsort(kind="stable")
        first = np.searchsorted(keys[order], wanted)
        if among is None:
            last = np.empty_like(order)
            last[order] = np.arange(len(order))  # those before it in its own group are earlier ones
        else:
            last = np.searchsorted(keys[order], wanted, side="right")
        last = np.minimum(last, first + MOST_COMPARED)
        active = np.flatnonzero((found < 0) & (first < last))
        while len(active):
            candidates = order[first[active]]
            close = np.flatnonzero(_count(own[active] ^ other[candidates]) <= NEAR)  # a quarter of the bits tells most
            near = close[distances(hashes[active[close]], others[candidates[close]]) <= NEAR]
            found[active[near]] = candidates[near]
            first[active] += 1
            active = active[(found[active] < 0) & (first[active] < last[active])]
    return found


def _part(hashes: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """The value (N,) of some bits of hashes (N, 4) uint64."""
    chosen = np.unpackbits(hashes.view(np.uint8), axis=1)[:, bits]
    value: np.ndarray = chosen.astype(np.int64) @ (1 << np.arange(len(bits)))
    return value
