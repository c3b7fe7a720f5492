"""Controlled comparisons: one configuration, several activations, everything else equal, several seeds."""

from yolomish.comparison.arms import Arm, Scope, build_arms, require_controlled
from yolomish.comparison.findings import Report, build_report
from yolomish.comparison.finished import compare_finished
from yolomish.comparison.run import run_comparison
from yolomish.comparison.runs import RunResult
from yolomish.comparison.writing import write_report

__all__ = [
    "Arm",
    "Report",
    "RunResult",
    "Scope",
    "build_arms",
    "build_report",
    "compare_finished",
    "require_controlled",
    "run_comparison",
    "write_report",
]
