"""From the name or path of weights to a network: whole and ready to use, or as the start of a training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from yolomish.coco_names import COCO_NAMES
from yolomish.config import TrainConfig, shipped
from yolomish.darknet.names import names_beside
from yolomish.darknet.order import stored_names
from yolomish.darknet.weights import fitting_classes, is_darknet_file, read_weights, with_classes
from yolomish.errors import YolomishError
from yolomish.networks import Network, build_network, find_model
from yolomish.networks.registry import cfg_file
from yolomish.networks.scope import swap as swap_activations
from yolomish.weights.catalogue import published
from yolomish.weights.checkpoint import config_of, read_checkpoint, require_finite
from yolomish.weights.match import fitting, resnet_state
from yolomish.weights.store import locate_weights
from yolomish.weights.structure import structure_of


@dataclass(frozen=True, kw_only=True)
class LoadedNetwork:
    """A network in eval mode on the CPU with its class names, how many images it has seen in training, the configuration of
    that training where the file records it, whether that file was Darknet's, and ``notes``: what its user should know."""

    network: Network
    names: tuple[str, ...]
    images_seen: int = 0
    training: TrainConfig | None = None
    from_darknet: bool = False
    notes: tuple[str, ...] = ()

    @property
    def config(self) -> TrainConfig:
        """The configuration of its training, or the little that a Darknet file's network says of one."""
        if self.training is not None:
            return self.training
        spec = self.network.input
        config = TrainConfig(model=self.network.config, image_size=spec.size_hw, resize=spec.resize)
        if not self.network.heads:
            config = replace(config, task="classify", eval_crop=1.0)  # src/classifier.c validate_classifier_single
        return config


def numbered_names(count: int) -> tuple[str, ...]:
    """Names for classes of which only the number is known: COCO's for 80, else 0, 1, ..."""
    return COCO_NAMES if count == len(COCO_NAMES) else tuple(str(i) for i in range(count))


def load_network(weights: str, *, cfg: str = "", model: str = "", swap: Sequence[str] = ()) -> LoadedNetwork:
    """The network in a ``.pt`` checkpoint (averaged weights where it has them) or a Darknet ``.weights`` file.

    ``weights`` is a path, or what ``locate_weights`` knows by name: ``demo``, ``yolov4``, a file of the weights folder.
    A ``.weights`` file holds no structure: a Darknet ``cfg`` does, or the shipped model or YAML named ``model``, else its own
    name and length (see ``structure_of``). Classes are called as a ``.names`` or ``.data`` file beside says; without one 80 get
    COCO's names, others their numbers. ``swap`` puts other activations into the trained network, ``SCOPE=ACTIVATION`` each.
    """
    loaded = _load(weights, cfg, model)
    if swap:
        network = loaded.network
        swap_activations(network, tuple(swap))
        network.config = replace(network.config, swap=(*network.config.swap, *swap))
        note = f"{weights} was trained with other activations than it runs with here: {', '.join(swap)}"
        loaded = replace(loaded, notes=(*loaded.notes, note))
    return loaded


def _load(weights: str, cfg: str, model: str) -> LoadedNetwork:
    path = locate_weights(weights)
    if is_darknet_file(path):
        structure = structure_of(path, cfg, model)
        network = build_network(structure)
        header = read_weights(path, network)
        if header.convolutions < header.total:
            raise YolomishError(
                f"{path} holds {header.convolutions} of {structure.name}'s {header.total} convolutions: it is to train from"
            )
        require_finite(network.state_dict(), path)
        count = structure.num_classes
        given = cfg or model
        beside = given if given not in shipped("models") and cfg_file(given) else path
        names = names_beside(beside, count) or numbered_names(count)
        return LoadedNetwork(network=network.eval(), names=names, images_seen=header.images_seen, from_darknet=True)
    if cfg:
        raise YolomishError(f"{path} is no Darknet .weights file and needs no cfg: leave out {cfg}")
    content = read_checkpoint(path)
    config = config_of(content, weights)
    network = build_network(config.model)
    network.resized(config.image_size, config.resize)
    try:
        network.load_state_dict(content["ema"] or content["model"])
    except RuntimeError as error:
        raise YolomishError(f"{weights} does not fit its own model: {' '.join(str(error).split())[:200]}") from None
    if len(content["names"]) != config.model.num_classes:
        raise YolomishError(f"{weights} is damaged: {len(content['names'])} names for {config.model.num_classes} classes")
    require_finite(network.state_dict(), weights)
    seen = content["progress"].get("images_seen", 0)
    return LoadedNetwork(network=network.eval(), names=tuple(content["names"]), images_seen=seen, training=config)


def start_from(network: Network, weights: str | Path, log: Callable[[str], Any]) -> None:
    """Start ``network`` from a ``.pt`` or Darknet file, or a ResNet's state dict of torchvision or timm; ``log`` is told what
    fitted. A classifier's file gives a detector its backbone (see ``match.fitting``).

    Tensors of other shapes stay as initialised; YolomishError where less than a third fit (a lone backbone is a half).
    """
    config, theirs = network.config, None
    if is_darknet_file(weights):
        source = _read_darknet(network, weights)
        if not config.cfg:
            known = published(Path(weights).name)
            form, was = (find_model(known.model).box_form, "was") if known else ("exp", "was probably")
            if form != config.box_form:
                log(f"{weights} {was} trained with box_form {form}, this model has {config.box_form}: its boxes start anew")
    elif not (source := resnet_state(weights)):
        content = read_checkpoint(weights)
        source = content["ema"] or content["model"]
        trained = config_of(content, weights)
        theirs, parts = trained.model, ("neck_activation", "box_form") if trained.task == "detect" else ()
        for key in ("activation", "swap", *parts):
            if getattr(theirs, key) != getattr(config, key):
                log(f"{weights} was trained with {key} {getattr(theirs, key)}, this model has {getattr(config, key)}")
    own = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    found = fitting(network, source, theirs)
    if 3 * len(found) < len(own):
        raise YolomishError(f"{weights} fits {len(found)} of this model's {len(own)} tensors: is it another model?")
    require_finite(found, weights)
    network.load_state_dict(found, strict=False)
    left = [k for k in own if k not in found]
    rest = f"; left as initialised: {', '.join(left[:6])}{', ...' if len(left) > 6 else ''}" if left else ""
    log(f"{weights}: {len(found)} of {len(own)} tensors loaded{rest}")


def _read_darknet(network: Network, weights: str | Path) -> dict[str, Tensor]:
    """The state that a ``.weights`` file holds, whole or cut off, with this network's number of classes, the file's own
    or COCO's."""
    try:
        header = read_weights(weights, network)
    except YolomishError:
        classes = fitting_classes(weights, network.config) or len(COCO_NAMES)
        if network.config.num_classes == classes:
            raise
        network = build_network(with_classes(network.config, classes))
        header = read_weights(weights, network)
    state, names = network.state_dict(), stored_names(network, header.convolutions)
    return {name: state[name] for name in names}
