"""The arms of a comparison: one base configuration with another activation in it, and a guard that nothing else moved."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from yolomish.config import TrainConfig, config_difference
from yolomish.errors import YolomishError, unknown_name

Scope = Literal["backbone", "neck", "all"]

SCOPE_KEYS: dict[str, tuple[str, ...]] = {
    "backbone": ("model.activation",),
    "neck": ("model.neck_activation",),
    "all": ("model.activation", "model.neck_activation"),
}
ACTIVATION_KEYS = frozenset(SCOPE_KEYS["all"])


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One side of a comparison. ``label`` is unique among its arms (``mish``, ``mish (2)``); ``slug`` names its folder."""

    label: str
    slug: str
    activation: str
    config: TrainConfig

    def seeded(self, seed: int) -> TrainConfig:
        """This arm's configuration with another seed."""
        return dataclasses.replace(self.config, seed=seed)


def require_controlled(arms: Sequence[Arm]) -> None:
    """YolomishError, naming the keys, where two arms differ in anything but an activation."""
    for arm in arms[1:]:
        other = {k: v for k, v in config_difference(arms[0].config, arm.config).items() if k not in ACTIVATION_KEYS}
        if other:
            what = ", ".join(f"{k} ({a!r} and {b!r})" for k, (a, b) in other.items())
            raise YolomishError(f"NOT CONTROLLED: arms {arms[0].label!r} and {arm.label!r} also differ in {what}")


def build_arms(base: TrainConfig, acts: Sequence[str], *, scope: str = "backbone") -> tuple[Arm, ...]:
    """One arm an activation, in order, ``base`` in all but the activations of ``scope``.

    ``backbone`` sets ``model.activation``, ``neck`` (with the heads) ``model.neck_activation``, ``all`` both. A repeated
    name makes an A/A arm. YolomishError for fewer than two names or an unknown scope; names are not looked up here.
    """
    if scope not in SCOPE_KEYS:
        raise unknown_name("scope", scope, get_args(Scope))
    if len(acts) < 2:
        raise YolomishError(f"a comparison needs at least two activations, not {len(acts)}: --acts mish,leaky_relu")
    arms: list[Arm] = []
    slugs: set[str] = set()
    for i, act in enumerate(acts):
        again = list(acts[: i + 1]).count(act)
        label = act if again == 1 else f"{act} ({again})"
        words = "".join(c if c.isalnum() or c == "_" else " " for c in label).split()
        slug = "-".join(words) or "arm"
        while slug in slugs:
            slug += "-x"
        slugs.add(slug)
        keys = {key.removeprefix("model."): act for key in SCOPE_KEYS[scope]}
        config = dataclasses.replace(base, model=dataclasses.replace(base.model, **keys))  # type: ignore[arg-type]
        arms.append(Arm(label=label, slug=slug, activation=act, config=config))
    require_controlled(arms)
    return tuple(arms)
