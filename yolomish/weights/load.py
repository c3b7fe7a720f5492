"""From the name or path of weights to a network that is ready to use."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

from yolomish.coco_names import COCO_NAMES
from yolomish.config import TrainConfig, from_dict, load_model_config
from yolomish.darknet.cfg import read_cfg
from yolomish.darknet.weights import fitting_classes, is_darknet_file, read_weights
from yolomish.errors import YolomishError
from yolomish.networks import YOLOv4, build_network
from yolomish.types import ResizeMode
from yolomish.weights.checkpoint import read_checkpoint
from yolomish.weights.store import locate_weights


@dataclass(frozen=True, kw_only=True)
class LoadedNetwork:
    """A model ready to use, in eval mode on the CPU, with its class names and the resize that it was trained with."""

    model: YOLOv4
    names: tuple[str, ...]
    resize: ResizeMode
    image_size: int


def load_network(weights: str, *, cfg: str = "", model: str = "yolov4") -> LoadedNetwork:
    """The network in a ``.pt`` checkpoint (averaged weights where it has them) or a Darknet ``.weights`` file.

    ``weights`` is a path, or what ``locate_weights`` knows by name: ``demo``, ``yolov4``, a file of the weights folder.
    A ``.weights`` file holds no structure: ``cfg`` gives it, else the shipped model or YAML named ``model``, with as many
    classes as make the file's length. 80 classes get COCO's names, others their numbers; images are stretched, as Darknet
    does.
    """
    path = locate_weights(weights)
    if is_darknet_file(path):
        structure = read_cfg(cfg) if cfg else load_model_config(model)
        if not cfg and (classes := fitting_classes(path, structure)):
            structure = replace(structure, num_classes=classes)
        network = build_network(structure)
        header = read_weights(path, network)
        if header.convolutions < header.total:
            raise YolomishError(
                f"{path} holds {header.convolutions} of {structure.name}'s {header.total} convolutions: it is to train from"
            )
        count = structure.num_classes
        names = COCO_NAMES if count == len(COCO_NAMES) else tuple(str(i) for i in range(count))
        return LoadedNetwork(model=network.eval(), names=names, resize="stretch", image_size=structure.image_size)
    if cfg:
        raise YolomishError(f"{path} is no Darknet .weights file and needs no cfg: leave out {cfg}")
    content = read_checkpoint(path)
    config = from_dict(TrainConfig, content["config"], f"configuration in {weights}")
    network = build_network(config.model)
    try:
        network.load_state_dict(content["ema"] or content["model"])
    except RuntimeError as error:
        raise YolomishError(f"{weights} does not fit its own model: {' '.join(str(error).split())[:200]}") from None
    return LoadedNetwork(
        model=network.eval(),
        names=tuple(content["names"]),
        resize=cast(ResizeMode, config.resize),
        image_size=config.image_size,
    )
