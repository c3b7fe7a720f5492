"""A window with what was found, where there is a display."""

from __future__ import annotations

import os
import sys

import cv2
import numpy as np

from yolomish.errors import YolomishError

TITLE = "yolomish (q or Esc: stop)"
QUIT_KEYS = (ord("q"), 27)


def check_display() -> None:
    """YolomishError where no window can be opened."""
    # Qt ends the whole process if it finds no display, so ask before
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise YolomishError("--show needs a display and there is none (DISPLAY is not set): leave it out, see the files instead")
    if "GUI: NONE" in " ".join(cv2.getBuildInformation().split()):
        raise YolomishError("--show needs OpenCV with windows: pip install opencv-python in place of opencv-python-headless")


def show(image: np.ndarray, *, wait: bool) -> bool:
    """Show (H, W, 3) uint8 RGB, until a key is pressed if ``wait``; whether to go on."""
    cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
    cv2.imshow(TITLE, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return cv2.waitKey(0 if wait else 1) & 0xFF not in QUIT_KEYS
