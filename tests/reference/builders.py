"""Heads, loaded networks and pipelines with only what a test cares about."""

from __future__ import annotations

from typing import Any

from yolomish.networks import Network
from yolomish.tasks.detection.pipeline import Pipeline
from yolomish.tasks.detection.protocol import EvalProtocol
from yolomish.tasks.detection.views import Runner
from yolomish.types import HeadSpec, ResizeMode
from yolomish.weights.load import LoadedNetwork


def head_of(anchors: tuple[tuple[float, float], ...], **rest: Any) -> HeadSpec:
    """A head that has all anchors that there are."""
    return HeadSpec(all_anchors=anchors, mask=tuple(range(len(anchors))), **rest)


def loaded_from(network: Network, names: tuple[str, ...], *, size: int = 0, resize: ResizeMode = "stretch") -> LoadedNetwork:
    """``network`` as if it were read from a file, at a square size in px (0: its own)."""
    network.resized((size, size) if size else None, resize)
    return LoadedNetwork(network=network, names=names)


def pipeline_of(runner: Runner, size: int, **protocol: Any) -> Pipeline:
    """A pipeline at a square size in px by a protocol of these fields."""
    fields = {"resize": "stretch", "conf": 0.001, "iou": 0.6, "nms": "greedy-diou"} | protocol
    return Pipeline(runner=runner, protocol=EvalProtocol(name="test", **fields), size_hw=(size, size))
