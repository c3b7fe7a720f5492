"""The tasks by name."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from yolomish.errors import unknown_name
from yolomish.tasks.base import Task

CLASSES = {  # imported when asked for: torchvision, which classification needs, takes a second to import
    "detect": ("yolomish.tasks.detection.task", "DetectionTask"),
    "classify": ("yolomish.tasks.classification.task", "ClassificationTask"),
}


def find_task(name: str) -> Task[Any]:
    """The task of a name; YolomishError for an unknown one."""
    if name not in CLASSES:
        raise unknown_name("task", name, CLASSES)
    module, kind = CLASSES[name]
    task: Task[Any] = getattr(import_module(module), kind)()
    return task
