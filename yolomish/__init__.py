"""A YOLOv4 with a pluggable activation: train it, evaluate it as MS-COCO does, compare activations honestly.

``from yolomish import Detector`` is the Python API for finding objects; torch is imported only then.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolomish.errors import YolomishError
    from yolomish.inference.detector import Detector
    from yolomish.types import Detections

__version__ = "0.1.0"
__all__ = ["Detections", "Detector", "YolomishError", "__version__"]

_HOMES = {"Detector": "yolomish.inference.detector", "Detections": "yolomish.types", "YolomishError": "yolomish.errors"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'yolomish' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
