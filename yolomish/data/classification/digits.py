"""The built-in digits: scikit-learn's 1,797 scanned digits of 8 x 8 px, written as a folder of PNGs per class on first use."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from yolomish.data.images import write_image
from yolomish.errors import YolomishError
from yolomish.files import cache_folder

MOST = 16  # the scans' white


def digits_root() -> Path:
    """The folder with train/ and val/, made on first use: digits-v1 in the cache folder.

    Train is the first half, val the second, as in scikit-learn's own example of recognising hand-written digits.
    YolomishError where scikit-learn, whose package holds them, is not installed.
    """
    root = cache_folder() / "digits-v1"
    if not root.is_dir():
        partial = root.with_name(f"{root.name}.{os.getpid()}.part")
        _generate(partial)
        try:
            os.replace(partial, root)
        except OSError:  # another process was first
            shutil.rmtree(partial, ignore_errors=True)
    return root


def _generate(root: Path) -> None:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise YolomishError("the digits come with scikit-learn, which is not installed: pip install 'yolomish[digits]'") from None
    digits = load_digits()
    half = len(digits.images) // 2
    for i, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = root / ("train" if i < half else "val") / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        grey = np.rint(image * (255 / MOST)).astype(np.uint8)
        write_image(folder / f"{i:04d}.png", np.repeat(grey[..., None], 3, axis=2))
