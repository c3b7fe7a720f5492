"""The tasks by name."""

from __future__ import annotations

from typing import Any

from yolomish.errors import unknown_name
from yolomish.tasks.base import Task
from yolomish.tasks.classification.task import ClassificationTask
from yolomish.tasks.detection.task import DetectionTask

TASKS: dict[str, Task[Any]] = {"detect": DetectionTask(), "classify": ClassificationTask()}


def find_task(name: str) -> Task[Any]:
    """The task of a name; YolomishError for an unknown one."""
    if name not in TASKS:
        raise unknown_name("task", name, TASKS)
    return TASKS[name]
