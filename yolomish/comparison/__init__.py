"""Controlled comparisons: one configuration, several activations, everything else equal, several seeds."""

from yolomish.comparison.arms import Arm, Scope, build_arms, config_difference, require_controlled
from yolomish.comparison.report import Report, RunResult, build_report, write_report
from yolomish.comparison.run import run_comparison

__all__ = [
    "Arm",
    "Report",
    "RunResult",
    "Scope",
    "build_arms",
    "build_report",
    "config_difference",
    "require_controlled",
    "run_comparison",
    "write_report",
]
