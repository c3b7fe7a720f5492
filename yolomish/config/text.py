"""YAML and JSON from anywhere as plain values: bounded in size and depth, and every fault one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from yolomish.errors import YolomishError, first_line
from yolomish.files import read_text, shown_path

MOST_CHARACTERS = 1 << 22
MOST_VALUES = 200_000  # with every alias written out
MOST_DEPTH = 40


class _Loader(yaml.SafeLoader):
    """The safe loader (plain values alone), which stops at ``MOST_DEPTH`` before Python's stack does."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """The next node, as yaml's own."""
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise YolomishError(f"it is nested over {MOST_DEPTH} deep")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def get_single_node(self) -> Any:
        """The document's node, whose aliases, written out, make no more than ``MOST_VALUES``."""
        node = super().get_single_node()
        if node is not None:
            _count(node, {})
        return node


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """The values in a node, each alias counted as what it stands for; YolomishError beyond the bound or for one in itself."""
    if known.setdefault(id(node), 0) < 0:
        raise YolomishError("an alias stands inside what it stands for")
    if not known[id(node)]:
        known[id(node)] = -1
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        known[id(node)] = 1 + sum(_count(part, known) for part in parts)
        if known[id(node)] > MOST_VALUES:
            raise YolomishError(f"it holds over {MOST_VALUES:,} values")
    return known[id(node)]


def parse_yaml(text: str, where: str | Path) -> Any:
    """The plain value that YAML text stands for; YolomishError naming ``where`` it stands for whatever is wrong with it."""
    if len(text) > MOST_CHARACTERS:
        raise YolomishError(f"{shown_path(where)} is longer than {MOST_CHARACTERS:,} characters: is it a settings file?")
    try:
        return yaml.load(text, Loader=_Loader)
    except Exception as error:  # yaml's constructors raise what int, float and datetime do
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise YolomishError(f"{shown_path(where)} cannot be read as YAML: {reason}") from None


def parse_json(text: str, where: str | Path) -> Any:
    """The plain value that JSON text stands for; YolomishError naming ``where`` it stands for whatever is wrong with it."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: a number of over 4,300 digits, too
        raise YolomishError(f"{shown_path(where)} cannot be read as JSON: {first_line(error)}") from None


def load_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; YolomishError where the file is missing, broken or not a mapping."""
    raw = parse_yaml(read_text(path), path)
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise YolomishError(f"{shown_path(path)} holds a {type(raw).__name__}, not a mapping of settings")
    return raw
