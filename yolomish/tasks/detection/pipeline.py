"""The one road from pixels to detections: prepare, run, finish."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from yolomish.data.transforms import undo_resize
from yolomish.ops.decode import Candidates
from yolomish.ops.nms import select
from yolomish.tasks.detection.protocol import EvalProtocol
from yolomish.tasks.detection.views import Runner, decode_views
from yolomish.types import Detections, Resize, SizeHW

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Images through ``runner`` by a whole ``protocol`` at a network size in px, with the runner's own suppression where
    the protocol takes that.

    ``device`` is where the runner wants its images: a network's own device; engines take them from the CPU.
    """

    runner: Runner
    protocol: EvalProtocol
    size_hw: SizeHW
    device: torch.device = CPU

    def __post_init__(self) -> None:
        self.runner.input.check_size(self.size_hw)
        object.__setattr__(self, "protocol", self.protocol.of(self.runner.heads))

    def prepare(self, images: Sequence[np.ndarray]) -> tuple[Tensor, tuple[Resize, ...]]:
        """Images (H, W, 3) uint8 RGB as the network's input (B, 3, H, W), and how each was resized."""
        pairs = [self.protocol.resize_image(image, self.size_hw) for image in images]
        stacked = torch.from_numpy(np.stack([image for image, _ in pairs])).permute(0, 3, 1, 2)  # channels_last in memory
        return self.normalise(stacked), tuple(resize for _, resize in pairs)

    def normalise(self, images: Tensor) -> Tensor:
        """Resized images (B, 3, H, W) in 0..255 as the network's input, on its device."""
        return self.runner.input.normalise(images.to(self.device))

    def run(self, images: Tensor) -> Candidates:
        """All boxes above the protocol's confidence, of every view, in network px."""
        return decode_views(self.runner, images, self.protocol.tta, self.protocol.conf)

    def finish(self, candidates: Candidates, resizes: Sequence[Resize]) -> list[Detections]:
        """Detections per image in image px, on the CPU, best first."""
        frames = [self.protocol.frame(resize) for resize in resizes]
        found = select(candidates, len(resizes), self.protocol, frames)
        return [undo_resize(d, resize).to("cpu") for d, resize in zip(found, resizes, strict=True)]

    @torch.inference_mode()
    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Detections of several images in one pass of the network, in their order."""
        prepared, resizes = self.prepare(images)
        return self.finish(self.run(prepared), resizes)
