"""From pixels to detections in image px."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np

from yolomish.config import parse_size
from yolomish.data.images import as_rgb, read_image
from yolomish.errors import YolomishError, unknown_name
from yolomish.inference.engines import Engine, build_engine
from yolomish.inference.engines.exported import RUNNERS, open_exported
from yolomish.ops.device import choose_device
from yolomish.tasks.detection.pipeline import Pipeline
from yolomish.tasks.detection.protocol import EvalProtocol, detect_protocol, find_protocol
from yolomish.types import Detections, size_text
from yolomish.weights.load import LoadedNetwork, load_network

if TYPE_CHECKING:
    from PIL.Image import Image

ImageLike = Union[str, "os.PathLike[str]", np.ndarray, "Image"]


class Detector:
    """A network with its class names, size and thresholds: images in, ``Detections`` in image px out. It writes nothing.

    ``weights`` is a ``.pt`` checkpoint, a Darknet ``.weights`` file (with its ``cfg`` or ``model``, else see
    ``structure_of``), a model that ``yolomish export`` wrote, or a ``LoadedNetwork``; ``swap`` puts other activations into it
    (``SCOPE=ACTIVATION``). ``names`` replace the weights' class names, ``image_size`` is the network's size in px (416, or
    (height, width); 0: the weights' own). ``protocol`` is how an image becomes detections, whole or by the name it has in
    ``PROTOCOLS``, with the same meaning as in an evaluation; empty: images as in training and Darknet's thresholds, 0.25 and
    0.45, or darknet-test where the weights come from a Darknet file. Given values replace the protocol's: ``conf`` is the
    lowest score kept and ``iou`` the threshold of the ``nms`` (see ``Selection``), 0..1; ``max_det`` the most detections per
    image, 0: no limit. ``agnostic`` lets classes suppress one another; ``classes`` are the names or numbers to keep (empty:
    all). ``engine`` runs the network on ``device``, in ``half`` precision or by torch's ``compile`` (see ``build_engine``).
    Detections are fixed by the arguments, so any number of threads may call one detector at once. YolomishError on a value
    that cannot be.
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] | LoadedNetwork,
        *,
        cfg: str = "",
        model: str = "",
        names: Sequence[str] = (),
        image_size: int | tuple[int, int] = 0,
        protocol: EvalProtocol | str = "",
        conf: float | None = None,
        iou: float | None = None,
        nms: str | None = None,
        max_det: int | None = None,
        agnostic: bool = False,
        swap: Sequence[str] = (),
        classes: Sequence[str | int] = (),
        device: str = "auto",
        engine: str = "auto",
        half: bool = False,
        compile: bool = False,
    ) -> None:
        chosen = choose_device(device)
        wanted = parse_size(image_size, "image_size") if image_size else None
        self.engine: Engine
        self.notes: tuple[str, ...]
        if not isinstance(weights, LoadedNetwork) and Path(weights).suffix in RUNNERS:
            for option, value in (("compile", compile), ("swap", swap), ("cfg", cfg), ("model", model)):
                if value:
                    raise YolomishError(f"{os.fspath(weights)} is a finished program: leave --{option} out")
            self.engine, description = open_exported(os.fspath(weights), engine=engine, device=chosen, half=half)
            own = description.input.size_hw
            if not description.dynamic and wanted not in (None, own):
                raise YolomishError(
                    f"{os.fspath(weights)} was exported for {size_text(own)} px alone, not {size_text(wanted or own)}"
                )
            own_names, darknet, self.notes = description.names, description.from_darknet, ()
        else:
            loaded = (
                weights
                if isinstance(weights, LoadedNetwork)
                else load_network(os.fspath(weights), cfg=cfg, model=model, swap=swap)
            )
            self.engine = build_engine(engine, loaded.network, device=chosen, half=half, compile=compile)
            own_names, darknet, self.notes = loaded.names, loaded.from_darknet, loaded.notes
        if names and len(names) != len(own_names):
            raise YolomishError(f"{len(names)} class names were given, the weights have {len(own_names)} classes")
        self.names = tuple(names) or own_names
        spec, labels = self.engine.input, choose_classes(classes, self.names)
        if not protocol:
            protocol = detect_protocol(spec, darknet=darknet)
        elif isinstance(protocol, str):
            protocol = find_protocol(protocol)
        protocol = protocol.changed(
            conf=conf, iou=iou, nms=nms, max_det=max_det, agnostic=agnostic or None, classes=labels or None
        )
        self.pipeline = Pipeline(runner=self.engine, protocol=protocol, size_hw=wanted or spec.size_hw)

    def detect(self, image: ImageLike) -> Detections:
        """Detections of one image, on the CPU: boxes in its px, clipped to it, best first.

        ``image`` is a file's path, a PIL image or an array (H, W, 3) uint8 **RGB** (OpenCV's are BGR: ``image[..., ::-1]``);
        (H, W) grey, (H, W, 1) and (H, W, 4) RGBA arrays are taken too. A file's and a PIL image's EXIF orientation is
        applied, and boxes are in the upright image's px.
        """
        return self.detect_batch([image])[0]

    def detect_batch(self, images: Sequence[ImageLike]) -> list[Detections]:
        """Detections of several images of any kinds and sizes in one pass of the network, in their order."""
        return self.pipeline.detect([open_image(image) for image in images]) if images else []


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
