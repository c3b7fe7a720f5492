"""No export is called good before it has returned the torch network's own numbers on a photograph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from yolomish.data.shapes import picture
from yolomish.errors import YolomishError
from yolomish.inference.export.onnx_graph import INPUT
from yolomish.inference.export.packages import require
from yolomish.networks import Network
from yolomish.ops.decode import decode
from yolomish.ops.nms import Selection, postprocess
from yolomish.tasks.detection.pipeline import Pipeline
from yolomish.tasks.detection.protocol import detect_protocol
from yolomish.types import SizeHW

TOLERANCE = 1e-3  # of the largest value; fp32 in another order of summation stays two to three digits below

BOX_PX = 0.5  # network px
Runner = Callable[[Tensor], Sequence[Tensor]]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """The largest differences to the torch network over all ``shapes`` tried: raw maps in logits (None where the format
    hides them) and scores in 0..1; ``by`` is who ran it, if that needs saying."""

    logits: float | None
    scores: float
    shapes: tuple[tuple[int, ...], ...]
    by: str = ""

    def __str__(self) -> str:
        sizes = ", ".join("x".join(map(str, shape)) for shape in self.shapes)
        logits = "" if self.logits is None else f"{self.logits:.1e} in logits, "
        return f"largest difference to torch: {logits}{self.scores:.1e} in scores (images {sizes}{self.by and ', by ' + self.by})"


def probe_images(network: Network, image: np.ndarray, *, size_hw: SizeHW, dynamic: bool) -> list[Tensor]:
    """``image`` (H, W, 3) uint8 RGB as the network sees it, (1, 3, H, W); with ``dynamic`` also a batch of two of another
    shape."""
    height, width = size_hw
    stride = network.input.stride
    sizes = [size_hw, (max(stride, height - stride), width)]
    probes = []
    for size in sizes[: 1 + dynamic]:
        protocol = detect_protocol(network.input)
        probes.append(Pipeline(runner=network, protocol=protocol, size_hw=size).prepare([image])[0])
    return [probes[0], *(torch.cat((probe, probe.flip(3))) for probe in probes[1:])]


def generated_image() -> np.ndarray:
    """A picture of shapes on a textured ground, for when there is no photograph."""
    return picture(np.random.default_rng(0))[0]


@torch.no_grad()
def compare(network: Network, run: Runner, probes: Sequence[Tensor], what: str) -> Agreement:
    """How far ``run`` is from ``network`` on ``probes``; YolomishError beyond ``TOLERANCE`` or where values are not finite."""
    logits = scores = 0.0
    for images in probes:
        theirs, ours = network(images), run(images)
        for expected, given in zip(theirs, ours, strict=True):
            if given.shape != expected.shape or not torch.isfinite(given).all():
                raise YolomishError(
                    f"{what} returns maps {tuple(given.shape)} of another shape, or not finite: nothing was written"
                )
            difference = (given - expected).abs().max().item()
            if difference > TOLERANCE * max(1.0, expected.abs().max().item()):
                raise YolomishError(f"{what} differs from the torch network by {difference:.1e} in logits: nothing was written")
            logits = max(logits, difference)
        a, b = decode(theirs, network.heads), decode(list(ours), network.heads)
        scores = max(scores, (a.objectness[..., None] * a.classes - b.objectness[..., None] * b.classes).abs().max().item())
    return Agreement(logits=logits, scores=scores, shapes=tuple(tuple(p.shape) for p in probes))


@torch.no_grad()
def check_nms(network: Network, path: Path, probes: Sequence[Tensor], conf: float, iou: float, max_det: int) -> Agreement:
    """How far the boxes of an ONNX file with NMS are from ours, by ONNX Runtime; YolomishError where a box has no counterpart.

    Boxes whose score is within the tolerance of ``conf`` may be on either side.
    """
    ort = require("onnxruntime")
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for images in probes:
        (rows,) = session.run(None, {INPUT: images.numpy()})
        found = postprocess(network(images), network.heads, Selection(conf=conf, iou=iou, nms="iou", max_det=0))
        for index, ours in enumerate(found):
            theirs = torch.from_numpy(rows[rows[:, 0] == index][:, 1:])
            mine = torch.cat((ours.boxes, ours.scores[:, None], ours.labels[:, None].float()), 1)
            mine = torch.cat([of[:max_det] for of in (mine[mine[:, 5] == k] for k in range(network.heads[0].num_classes))])
            for one, other in ((mine, theirs), (theirs, mine)):
                one = one[one[:, 4] > conf + TOLERANCE]
                if not len(one):
                    continue
                apart = (one[:, None] - other[None]).abs() / torch.tensor([BOX_PX] * 4 + [TOLERANCE, 0.5])
                nearest = apart.amax(2).min(1).values if len(other) else torch.full((len(one),), torch.inf)
                if (nearest > 1).any():
                    lost = int((nearest > 1).sum())
                    raise YolomishError(f"{lost} of {len(one)} boxes differ between the ONNX file and torch: nothing was written")
                worst = max(worst, nearest.max().item() * TOLERANCE)
    return Agreement(logits=None, scores=worst, shapes=tuple(tuple(p.shape) for p in probes), by="ONNX Runtime with NMS")
