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


def as_rgb(image: object) -> np.ndarray:
    """A PIL image (EXIF orientation applied) or an array (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA of uint8 as
    (H, W, 3) uint8 RGB; alpha is dropped. YolomishError on anything else."""
    from PIL import Image, ImageOps

    if isinstance(image, Image.Image):
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    if not isinstance(image, np.ndarray):
        raise YolomishError(f"an image must be a path, a PIL image or an array, not {type(image).__name__}")
    if image.dtype != np.uint8:
        raise YolomishError(f"an image array must be uint8 with values 0..255, not {image.dtype}")
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or not image.size:
        raise YolomishError(f"an image array must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not {image.shape}")
    if image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    return np.ascontiguousarray(image[..., :3])


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB in the format of the file's suffix; YolomishError naming the file on failure."""
    ok, raw = cv2.imencode(Path(path).suffix or ".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not ok:
        raise YolomishError(f"{path} cannot be encoded")
    try:
        Path(path).write_bytes(raw.tobytes())
    except OSError as error:
        raise YolomishError(f"{path} cannot be written: {error.strerror}") from None
