"""From pixels to detections in image px."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np
import torch
from torch import Tensor

from yolomish.config import check_image_size
from yolomish.data.images import as_rgb, read_image
from yolomish.data.transforms import resize_image, undo_resize
from yolomish.errors import YolomishError, unknown_name
from yolomish.inference.engines import build_engine
from yolomish.inference.engines.exported import RUNNERS, open_exported
from yolomish.inference.export.metadata import Description
from yolomish.ops.device import choose_device
from yolomish.ops.nms import NMS_KINDS, postprocess
from yolomish.types import Detections, Resize
from yolomish.weights.load import LoadedNetwork, load_network

if TYPE_CHECKING:
    from PIL.Image import Image

ImageLike = Union[str, "os.PathLike[str]", np.ndarray, "Image"]


class Detector:
    """A network with its class names, size and thresholds: images in, ``Detections`` in image px out. It writes nothing.

    ``weights`` is a ``.pt`` checkpoint, a Darknet ``.weights`` file (with its ``cfg``, else the shipped ``model`` that
    it fits), a model that ``yolomish export`` wrote, or a loaded ``Network``. ``engine`` runs it (see ``build_engine``).
    ``image_size`` (0: the weights' own) is the network's side in px; ``classes`` are the names or numbers to keep (empty:
    all). Detections are fixed by the arguments, so any number of threads may call
    one detector at once. YolomishError on a value that cannot be.
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] | LoadedNetwork,
        *,
        cfg: str = "",
        model: str = "yolov4",
        names: Sequence[str] = (),
        image_size: int = 0,
        conf: float = 0.25,
        iou: float = 0.45,
        nms: str = "greedy-diou",
        max_det: int = 300,
        agnostic: bool = False,
        classes: Sequence[str | int] = (),
        device: str = "auto",
        engine: str = "auto",
        half: bool = False,
        compile: bool = False,
    ) -> None:
        for key, value in (("conf", conf), ("iou", iou)):
            if not 0 <= value <= 1:
                raise YolomishError(f"{key} must be between 0 and 1, not {value}")
        if max_det < 1:
            raise YolomishError(f"max_det must be at least 1, not {max_det}")
        if nms not in NMS_KINDS:
            raise unknown_name("NMS kind", nms, NMS_KINDS)
        chosen = choose_device(device)
        network: LoadedNetwork | Description
        if not isinstance(weights, LoadedNetwork) and Path(weights).suffix in RUNNERS:
            if compile:
                raise YolomishError(f"{os.fspath(weights)} is compiled already: leave --compile out")
            self.engine, network = open_exported(os.fspath(weights), engine=engine, device=chosen, half=half)
            if not network.dynamic and image_size not in (0, network.image_size):
                raise YolomishError(f"{os.fspath(weights)} was exported for {network.image_size} px alone, not {image_size}")
        else:
            network = weights if isinstance(weights, LoadedNetwork) else load_network(os.fspath(weights), cfg=cfg, model=model)
            self.engine = build_engine(engine, network.model, device=chosen, half=half, compile=compile)
        self.image_size, self.resize = image_size or network.image_size, network.resize
        check_image_size(self.image_size)
        if names and len(names) != len(network.names):
            raise YolomishError(f"{len(names)} class names were given, the weights have {len(network.names)} classes")
        self.names = tuple(names) or network.names
        self.classes = choose_classes(classes, self.names)
        self.conf, self.iou, self.nms, self.max_det, self.agnostic = conf, iou, nms, max_det, agnostic

    def detect(self, image: ImageLike) -> Detections:
        """Detections of one image, on the CPU: boxes in its px, clipped to it, best first.

        ``image`` is a file's path, a PIL image or an array (H, W, 3) uint8 **RGB** (OpenCV's are BGR: ``image[..., ::-1]``);
        (H, W) grey, (H, W, 1) and (H, W, 4) RGBA arrays are taken too. A file's and a PIL image's EXIF orientation is
        applied, and boxes are in the upright image's px.
        """
        return self.detect_batch([image])[0]

    def detect_batch(self, images: Sequence[ImageLike]) -> list[Detections]:
        """Detections of several images of any kinds and sizes in one pass of the network, in their order."""
        if not images:
            return []
        stacked, resizes = self.prepare([open_image(image) for image in images])
        return self.finish(self.engine(stacked), resizes)

    def prepare(self, images: Sequence[np.ndarray]) -> tuple[Tensor, list[Resize]]:
        """Images (H, W, 3) uint8 RGB as the network's input (B, 3, S, S) float32 in 0..1, and how each was resized."""
        pairs = [resize_image(image, self.image_size, self.resize) for image in images]
        stacked = torch.from_numpy(np.stack([image for image, _ in pairs])).permute(0, 3, 1, 2)  # channels_last in memory
        return stacked.float().div_(255), [resize for _, resize in pairs]

    @torch.inference_mode()
    def finish(self, maps: Sequence[Tensor], resizes: Sequence[Resize]) -> list[Detections]:
        """Detections in image px, on the CPU, from a batch's raw maps."""
        found = postprocess(
            maps,
            self.engine.heads,
            conf=self.conf,
            iou=self.iou,
            kind=self.nms,
            max_det=self.max_det,
            agnostic=self.agnostic,
            classes=self.classes,
        )
        return [undo_resize(d, resize).to("cpu") for d, resize in zip(found, resizes, strict=True)]


def open_image(image: ImageLike) -> np.ndarray:
    """Whatever stands for an image as (H, W, 3) uint8 RGB; YolomishError where it does not."""
    if isinstance(image, str | os.PathLike):
        return read_image(os.fspath(image))
    return as_rgb(image)


def choose_classes(wanted: Sequence[str | int], names: Sequence[str]) -> tuple[int, ...]:
    """The labels of class names or numbers, each once; a name wins over a number that looks like it."""
    labels = []
    for item in wanted:
        if item in names:
            labels.append(names.index(str(item)))
        elif str(item).isdecimal() and int(item) < len(names):
            labels.append(int(item))
        else:
            raise unknown_name("class", str(item), names)
    return tuple(dict.fromkeys(labels))
