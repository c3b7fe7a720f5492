"""A transfer in lines and as plain values, and what both networks cost in each engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from yolomish.errors import YolomishError, first_line
from yolomish.inference.bench import interleaved, quartiles
from yolomish.inference.engines import Engine, build_engine
from yolomish.inference.export.verify import generated_image, probe_images
from yolomish.transfer.run import Transfer, TransferOptions
from yolomish.weights.load import LoadedNetwork

COLUMNS = ("AP", "AP50", "AP75")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """Seconds per image of both networks in an engine, in each round; ``skipped`` says why there are none."""

    engine: str
    before: tuple[float, ...] = ()
    after: tuple[float, ...] = ()
    skipped: str = ""


def timings(
    before: LoadedNetwork, after: LoadedNetwork, engines: Sequence[str], rounds: int, say: Callable[[str], Any]
) -> tuple[Cost, ...]:
    """Both networks on the CPU in each engine, one image of their own size at a time, all of them in turn in every round."""
    images = probe_images(before.network, generated_image(), size_hw=before.network.input.size_hw, dynamic=False)[0]
    ready: dict[str, tuple[Engine, Engine]] = {}
    skipped: dict[str, str] = {}
    for name in engines:
        say(f"preparing {name}")
        engine, _, precision = name.partition(":")
        try:
            pair = [
                build_engine(engine, x.network, device=torch.device("cpu"), half=precision == "half") for x in (before, after)
            ]
            for one in pair:
                one(images)
            ready[name] = pair[0], pair[1]
        except YolomishError as error:
            skipped[name] = first_line(error)
    calls = [partial(engine, images) for pair in ready.values() for engine in pair]
    seconds = iter(interleaved(calls, rounds) if calls else ())
    costs = [Cost(engine=name, before=tuple(next(seconds)), after=tuple(next(seconds))) for name in ready]
    return (*costs, *(Cost(engine=name, skipped=reason) for name, reason in skipped.items()))


def as_table(done: Transfer, costs: Sequence[Cost]) -> list[str]:
    """The stages, and the costs where there are any, in Markdown."""
    lines = [done.protocol, "", f"| step | {' | '.join(COLUMNS)} |", f"|{' --- |' * (1 + len(COLUMNS))}"]
    for stage in done.stages:
        lines.append(f"| {stage.name} | {' | '.join(f'{stage.metrics.values[name]:.4f}' for name in COLUMNS)} |")
    if costs:
        lines += ["", "| engine | original, ms | swapped, ms | swapped / original |", "| --- | --- | --- | --- |"]
    for cost in costs:
        if cost.skipped:
            lines.append(f"| {cost.engine} | not run: {cost.skipped} | | |")
            continue
        ratios = [after / before for before, after in zip(cost.before, cost.after, strict=True)]
        cells = [*(_spread([1000 * v for v in values], 1) for values in (cost.before, cost.after)), _spread(ratios, 3)]
        lines.append(f"| {cost.engine} | {' | '.join(cells)} |")
    return lines


def _spread(values: Sequence[float], digits: int) -> str:
    low, middle, high = quartiles(values)
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def to_dict(done: Transfer, costs: Sequence[Cost], weights: str, options: TransferOptions) -> dict[str, Any]:
    """What swap.json holds."""
    return {
        "weights": weights,
        "options": dataclasses.asdict(options),
        "protocol": done.protocol,
        "stages": [{"name": stage.name, **stage.metrics.values} for stage in done.stages],
        "costs": [dataclasses.asdict(cost) for cost in costs],
    }
