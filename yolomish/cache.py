"""Where files go that can be made again: cached images, built-in data, fetched weights, built kernels."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$YOLOMISH_CACHE, else yolomish in the user's cache folder."""
    return Path(os.environ.get("YOLOMISH_CACHE") or Path.home() / ".cache" / "yolomish")
