"""Optional packages, asked for only where they are used."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from yolomish.errors import YolomishError

EXTRAS = {
    "onnx": "onnx",
    "onnxscript": "onnx",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "nncf": "int8",
    "submitit": "cluster",
}


def installed(package: str) -> bool:
    """Whether an optional package is there, without importing it."""
    return importlib.util.find_spec(package) is not None


def require(package: str) -> Any:
    """The module ``package``; YolomishError that says how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        extra = EXTRAS[package.partition(".")[0]]
        raise YolomishError(f"this needs the package {package} ({error}): pip install 'yolomish[{extra}]'") from None
