"""Pages that hold their pictures themselves and fetch nothing."""

from __future__ import annotations

import base64
from functools import cache

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

QUALITY = 82  # of JPEGs, 0..100


def jpeg(image: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB as a JPEG file."""
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not ok:
        raise ValueError("OpenCV could not write a JPEG")
    return bytes(data)


@cache
def templates(package: str) -> Environment:
    """The templates of a package's folder ``templates``: HTML is escaped, a missing value is an error, ``base64`` is a filter."""
    environment = Environment(
        loader=PackageLoader(package), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode("ascii")
    return environment
