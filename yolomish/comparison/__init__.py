"""Controlled comparisons: one configuration, several activations, everything else equal, several seeds."""

from yolomish.comparison.compare import compare_activations, compare_finished
from yolomish.comparison.render import write_report
from yolomish.comparison.report import Report

__all__ = ["Report", "compare_activations", "compare_finished", "write_report"]
