"""Pluggable activations, one record each; own ones by file (``my.py:name``) or entry point ``yolomish.activations``."""

from yolomish.activations.record import Activation, OneDnnForm, OnnxForm
from yolomish.activations.registry import (
    activation_names,
    build_activation,
    darknet_activations,
    find_activation,
    register_activation,
)

__all__ = [
    "Activation",
    "OneDnnForm",
    "OnnxForm",
    "activation_names",
    "build_activation",
    "darknet_activations",
    "find_activation",
    "register_activation",
]
