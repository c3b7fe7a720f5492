"""What an activation costs in each engine here: behind a 1x1 convolution with batch norm, over a map of usual size."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from yolomish.activations import find_activation
from yolomish.config import ModelConfig
from yolomish.errors import YolomishError, first_line
from yolomish.inference.bench import interleaved, quartiles
from yolomish.inference.engines import Engine, build_engine
from yolomish.networks import Network
from yolomish.nn.blocks import ConvBlock
from yolomish.types import HeadSpec, InputSpec

CHANNELS, SIDE = 64, 104  # yolov4's map at a quarter of 416 px
TRAINING = "training"  # torch's forward and backward pass of batch norm and activation


class _Probe(Network):
    """One block whose activated map is the raw map."""

    def __init__(self, activation: str) -> None:
        super().__init__()
        self.block = ConvBlock(CHANNELS, CHANNELS, 1, activation=activation)
        self.input = InputSpec(size_hw=(SIDE, SIDE), stride=1, channels=CHANNELS)
        self.heads = (HeadSpec(all_anchors=((1.0, 1.0),), mask=(0,), stride=1, num_classes=CHANNELS - 5),)
        self.parts = {"backbone": ("block",)}
        self.config = ModelConfig(name="probe")

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return (self.block(images),)


@dataclass(frozen=True, kw_only=True)
class ActCost:
    """Seconds of each round of one activation in one engine; ``linear`` are those of the same map without an activation."""

    activation: str
    engine: str
    seconds: tuple[float, ...] = ()
    linear: tuple[float, ...] = ()
    skipped: str = ""

    @property
    def extra_ms(self) -> list[float]:
        """What the activation adds to the block in each round, in ms."""
        return [1000 * (a - b) for a, b in zip(self.seconds, self.linear, strict=True)]


def measure_activations(
    names: Sequence[str],
    engines: Sequence[str],
    *,
    rounds: int,
    processor_time: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[ActCost, ...]:
    """The cost of activations on this CPU in ``engines`` (those of ``build_engine``, and ``training``), one image, all of an
    engine's in turn in every round. What cannot run carries its reason. ``processor_time`` is as in ``bench.measure``."""
    clock = time.process_time if processor_time else time.perf_counter
    acts = list(dict.fromkeys(find_activation(name).name for name in names))
    images = torch.randn(1, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    costs: list[ActCost] = []
    for engine in engines:
        say(f"preparing {engine}")
        calls: dict[str, Callable[[], object]] = {}
        for act in ("linear", *(a for a in acts if a != "linear")):
            try:
                calls[act] = _call(act, engine, images)
                calls[act]()
            except YolomishError as error:
                calls.pop(act, None)
                costs.append(ActCost(activation=act, engine=engine, skipped=first_line(error)))
        if "linear" not in calls:
            continue
        for call in calls.values():
            call()
        seconds = dict(zip(calls, interleaved(list(calls.values()), rounds, clock=clock), strict=True))
        costs += [
            ActCost(activation=act, engine=engine, seconds=tuple(seconds[act]), linear=tuple(seconds["linear"]))
            for act in acts
            if act in calls
        ]
    return tuple(costs)


def _call(act: str, engine: str, images: Tensor) -> Callable[[], object]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        probe = _Probe(act)
    if engine == TRAINING:
        return partial(_train, probe.train(), images.clone().requires_grad_())
    name, _, precision = engine.partition(":")
    built: Engine = build_engine(name, probe.eval(), device=torch.device("cpu"), half=precision == "half")
    return partial(built, images)


def _train(probe: Network, images: Tensor) -> None:
    (raw,) = probe(images)
    raw.backward(torch.ones_like(raw))


def as_table(costs: Sequence[ActCost]) -> list[str]:
    """What each activation adds, in Markdown: median [quartiles] of the rounds, a column for each engine, the cheapest first."""
    engines = list(dict.fromkeys(cost.engine for cost in costs))
    found = {(cost.activation, cost.engine): cost for cost in costs}
    rounds = max((len(cost.seconds) for cost in costs), default=0)
    lines = [
        f"ms that an activation adds to a 1x1 convolution with batch norm, {CHANNELS} x {SIDE} x {SIDE} values in fp32 (:half: "
        f"bf16), {torch.get_num_threads()} threads; median [quartiles] of {rounds} interleaved rounds",
        "",
        f"| activation | {' | '.join(engines)} |",
        f"|{' --- |' * (1 + len(engines))}",
    ]
    middle = {a: quartiles(c.extra_ms)[1] for (a, e), c in found.items() if e == engines[0] and c.seconds}
    acts = dict.fromkeys(cost.activation for cost in costs)
    for act in sorted(acts, key=lambda a: middle.get(a, float("inf"))):
        lines.append(f"| {act} | {' | '.join(_cell(found.get((act, engine))) for engine in engines)} |")
    return lines


def _cell(cost: ActCost | None) -> str:
    if cost is None or not cost.seconds:
        return f"not run: {cost.skipped}" if cost else ""
    low, middle, high = quartiles(cost.extra_ms)
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"
