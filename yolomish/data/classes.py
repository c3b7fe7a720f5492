"""Classes are compared by name: those of a data set with those of a network, or of another split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from yolomish.errors import YolomishError

# COCO's own spellings of what Darknet's data/coco.names calls otherwise
SPELLINGS = {"motorbike": "motorcycle", "aeroplane": "airplane", "sofa": "couch", "tvmonitor": "tv"}


def class_places(
    own: tuple[str, ...], wanted: tuple[str, ...], counts: np.ndarray, *, source: Path, whose: str | Path
) -> tuple[int | None, ...]:
    """The place in ``wanted`` of each of a data set's ``own`` classes, by name; None for a class without boxes that is not there.

    ``counts`` (own,) are the boxes of each. Case, blanks, hyphens, underscores and Darknet's spellings of COCO's names do not
    matter. Where ``whose`` classes are but numbers, or half of the names stand at the same places and no other is elsewhere,
    the rest are taken as other spellings. YolomishError, naming ``source`` and ``whose``, for a class that has no place.
    """
    keys, theirs = _keys(own), _keys(wanted)
    if len(set(keys)) < len(keys) or len(set(theirs)) < len(theirs):  # names that only case tells apart
        keys, theirs = list(own), list(wanted)
    place_of = {key: place for place, key in enumerate(theirs)}
    places = [place_of.get(key) for key in keys]
    needed = counts > 0 if counts.any() else np.ones(len(own), bool)
    if not (missing := [own[i] for i in np.flatnonzero(needed) if places[i] is None]):
        return tuple(places)
    numbers = wanted == tuple(str(i) for i in range(len(wanted)))
    matched = sum(place is not None for place in places)
    if len(own) == len(wanted) and all(place in (None, i) for i, place in enumerate(places)):
        if numbers or 2 * matched >= len(own):
            return tuple(range(len(own)))
    if numbers or (len(own) != len(wanted) and not matched):
        raise YolomishError(f"{whose} has {len(wanted)} classes, the data {len(own)}: wrong --data?")
    raise YolomishError(
        f"{source} has boxes of {_some(missing)}, and {whose} has no such class but {_some(wanted)}: wrong --data? The same "
        "classes under other names must be named alike"
    )


def _keys(names: Sequence[str]) -> list[str]:
    plain = ["".join(c for c in name.casefold() if c not in " _-") for name in names]
    return [SPELLINGS.get(name, name) for name in plain]


def _some(names: Sequence[str]) -> str:
    return ", ".join(name[:40] for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
