"""Pluggable activations: one registry; own ones by file (``my.py:name``) or entry point ``yolomish.activations``."""

from yolomish.activations import standard  # noqa: F401  (registers the built-in ones)
from yolomish.activations.registry import (
    activation_names,
    build_activation,
    describe_activation,
    register_activation,
)

__all__ = ["activation_names", "build_activation", "describe_activation", "register_activation"]
