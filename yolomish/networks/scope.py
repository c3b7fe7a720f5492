"""Which activations are meant: a part of a network, sections by number, what lies below a module, or all of one kind."""

from __future__ import annotations

import os
import re

from yolomish.activations import darknet_activations, find_activation
from yolomish.config import ModelConfig
from yolomish.darknet.write import section_numbers
from yolomish.errors import YolomishError, shown
from yolomish.files import digest
from yolomish.networks.base import Network, within
from yolomish.nn.blocks import Activated, set_activation

NUMBERS = re.compile(r"\d{1,9}(-\d{1,9})?(,\d{1,9}(-\d{1,9})?)*")


def find_slots(network: Network, scope: str) -> dict[str, Activated]:
    """The blocks of ``scope`` by name: ``all``; a part (backbone, neck, head); numbers as ``yolomish info`` shows them
    (``0-104``, ``3,7-9``); a module's name and all below it; or an activation's name for every block that has it now.

    YolomishError where nothing is meant, or the network does not tell the part apart.
    """
    slots = network.slots()
    if scope == "all":
        found = slots
    elif scope in network.parts or scope in ("backbone", "neck", "head"):
        found = network.slots(scope)
    elif NUMBERS.fullmatch(scope):
        numbers = section_numbers(network)
        ranges = [[int(end) for end in part.split("-")] for part in scope.split(",")]
        found = {n: b for n, b in slots.items() if any(r[0] <= numbers[n] <= r[-1] for r in ranges)}
    else:
        found = {n: b for n, b in slots.items() if scope and within(n, (scope,))}
        found = found or {n: b for n, b in slots.items() if b.activation_name == _canonical(scope)}
    if not found:
        raise YolomishError(
            f"scope {shown(scope)} names no activation of {network.name}: name all, a part ({', '.join(network.parts)}), numbers "
            f"as `yolomish info` shows them, a module, or one of "
            f"{', '.join(network.activations())}"
        )
    return found


def _canonical(name: str) -> str:
    """An activation's own name from ours or Darknet's, empty for none."""
    if name in darknet_activations():
        return darknet_activations()[name].name
    try:
        return find_activation(name).name
    except YolomishError:
        return ""


def split_swap(text: str) -> tuple[str, str]:
    """``SCOPE=ACTIVATION`` as its two parts; YolomishError for anything else."""
    scope, sign, activation = text.partition("=")
    if not (scope and sign and activation):
        raise YolomishError(f"a swap is SCOPE=ACTIVATION, such as leaky_relu=mish or backbone=relu, not {text!r}")
    return scope.strip(), activation.strip()


def activation_files(config: ModelConfig) -> dict[str, str]:
    """The activations of a model that come from a file, ``FILE.py:NAME``, each with the SHA-256 of the file as it is now."""
    names = {config.activation, config.neck_activation, *(split_swap(swap)[1] for swap in config.swap)}
    files = {name: f"{name.rpartition('.py:')[0]}.py" for name in sorted(names) if ".py:" in name}
    return {name: digest(file).sha256 for name, file in files.items() if os.path.isfile(file)}


def swap(network: Network, swaps: tuple[str, ...]) -> None:
    """Put other activations into ``network``, one ``SCOPE=ACTIVATION`` after another; weights stay as they are."""
    for text in swaps:
        scope, activation = split_swap(text)
        for block in find_slots(network, scope).values():
            set_activation(block, activation)
