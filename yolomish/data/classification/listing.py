"""What a list of images to classify is, whatever it was read from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np


class Stored(Protocol):
    """A picture that is no file of its own."""

    def read(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, upright."""
        ...

    def stamp(self) -> tuple[int, int]:
        """Its size in bytes, and a number that changes where it does."""
        ...


@dataclass(frozen=True, kw_only=True)
class ClassListing:
    """A split as listed in ``source``: ``paths`` of images, and of each the place of its class in ``names``. Where images are
    no files of their own, they are ``stored`` and their paths are names."""

    source: Path
    names: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    stored: tuple[Stored, ...] = ()

    def taken(self, chosen: Sequence[int]) -> ClassListing:
        """The images at these places."""
        return replace(
            self,
            paths=tuple(self.paths[i] for i in chosen),
            labels=tuple(self.labels[i] for i in chosen),
            stored=tuple(self.stored[i] for i in chosen) if self.stored else (),
        )
