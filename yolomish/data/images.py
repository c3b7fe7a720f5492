"""One way from a file to pixels: RGB, EXIF orientation applied. BGR ends here."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from yolomish.errors import YolomishError


def read_image(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB with the EXIF orientation applied; YolomishError naming the file if it cannot be read."""
    try:
        raw = np.fromfile(str(path), dtype=np.uint8)
    except OSError as error:
        raise YolomishError(f"{path} cannot be read: {error.strerror}") from None
    try:
        image = cv2.imdecode(raw, cv2.IMREAD_COLOR) if len(raw) else None
    except cv2.error:
        image = None
    if image is None:
        raise YolomishError(f"{path} is not an image that OpenCV can read")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB in the format of the file's suffix; YolomishError naming the file on failure."""
    ok, raw = cv2.imencode(Path(path).suffix or ".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not ok:
        raise YolomishError(f"{path} cannot be encoded")
    try:
        Path(path).write_bytes(raw.tobytes())
    except OSError as error:
        raise YolomishError(f"{path} cannot be written: {error.strerror}") from None
