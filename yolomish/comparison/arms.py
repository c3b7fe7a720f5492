"""The arms of a comparison: one base configuration with another activation in it, and a guard that nothing else moved."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from yolomish.config import RESUMABLE, TrainConfig, config_difference
from yolomish.errors import YolomishError, unknown_name
from yolomish.networks.registry import outline
from yolomish.networks.scope import find_slots

SCOPE_KEYS: dict[str, tuple[str, ...]] = {
    "backbone": ("model.activation",),
    "neck": ("model.neck_activation",),
    "all": ("model.activation", "model.neck_activation"),
}
ACTIVATION_KEYS = frozenset({*SCOPE_KEYS["all"], "model.swap"})
START_KEYS = frozenset({"initial_weights", "initial_weights_sha256"})
NO_RESULT = RESUMABLE - {"epochs"}  # may differ between equal runs


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One side of a comparison. ``label`` is unique among its arms (``mish``, ``mish (2)``); ``slug`` names its folder.

    ``seed_offset`` is added to each seed (A/A arms).
    """

    label: str
    slug: str
    config: TrainConfig
    seed_offset: int = 0

    def seeded(self, seed: int) -> TrainConfig:
        """This arm's configuration with another seed."""
        return dataclasses.replace(self.config, seed=seed + self.seed_offset)


def require_controlled(arms: Sequence[Arm]) -> None:
    """YolomishError, naming the keys, where two arms differ in anything but an activation and what they start from."""
    for arm in arms[1:]:
        found = config_difference(arms[0].config, arm.config)
        other = {k: v for k, v in found.items() if k not in ACTIVATION_KEYS | START_KEYS}
        if other:
            what = ", ".join(f"{k} ({a!r} and {b!r})" for k, (a, b) in other.items())
            raise YolomishError(f"NOT CONTROLLED: arms {arms[0].label!r} and {arm.label!r} also differ in {what}")


def difference_table(configs: Sequence[TrainConfig]) -> dict[str, tuple[Any, ...]]:
    """Every setting in which configurations differ, with the value of each; seeds, starts and what changes no result left out."""
    found = {key for other in configs[1:] for key in config_difference(configs[0], other)} - NO_RESULT - START_KEYS - {"seed"}
    return {key: tuple(_value(config, key) for config in configs) for key in sorted(found)}


def _value(config: TrainConfig, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def scope_of(difference: Mapping[str, Any]) -> str:
    """Where the activation changes, by the keys in which configurations differ; ``backbone`` where none does (A/A)."""
    if "model.swap" in difference:
        return ", ".join(dict.fromkeys(swap.partition("=")[0] for swaps in difference["model.swap"] for swap in swaps))
    changed = ACTIVATION_KEYS & difference.keys()
    return "all" if len(changed) == 2 else "neck" if changed == {"model.neck_activation"} else "backbone"


def slug_of(label: str, taken: set[str]) -> str:
    """A folder's name for a label, not among ``taken``; it is added to them."""
    slug = "-".join("".join(c if c.isalnum() or c == "_" else " " for c in label).split()) or "arm"
    while slug in taken:
        slug += "-x"
    taken.add(slug)
    return slug


def build_arms(
    base: TrainConfig,
    acts: Sequence[str],
    *,
    scope: str = "backbone",
    weights: Mapping[str, str] | None = None,
    seed_step: int = 0,
) -> tuple[Arm, ...]:
    """One arm per activation, in order, ``base`` in all but the activations of ``scope``.

    ``backbone`` sets ``model.activation``, ``neck`` (with the heads) ``model.neck_activation``, ``all`` both; any other scope
    of ``networks.scope`` is put into ``model.swap``. A repeated name makes an A/A arm, whose seeds are ``seed_step`` further
    on. ``weights`` names the file each activation starts from. YolomishError for fewer than two names or a scope that the
    network does not have; names are not looked up here.
    """
    if scope not in SCOPE_KEYS:
        find_slots(outline(base.model), scope)
    if len(acts) < 2:
        raise YolomishError(f"a comparison needs at least two activations, not {len(acts)}: --acts mish,leaky_relu")
    for name in weights or {}:
        if name not in acts:
            raise unknown_name("activation in --weights", name, acts)
    arms: list[Arm] = []
    slugs: set[str] = set()
    for i, act in enumerate(acts):
        again = list(acts[: i + 1]).count(act)
        label = act if again == 1 else f"{act} ({again})"
        keys: dict[str, Any] = {key.removeprefix("model."): act for key in SCOPE_KEYS.get(scope, ())}
        model = dataclasses.replace(base.model, **(keys or {"swap": (*base.model.swap, f"{scope}={act}")}))
        config = dataclasses.replace(base, model=model, initial_weights=(weights or {}).get(act, base.initial_weights))
        arms.append(Arm(label=label, slug=slug_of(label, slugs), config=config, seed_offset=(again - 1) * seed_step))
    require_controlled(arms)
    return tuple(arms)
