"""Which network a Darknet file belongs to: it holds weights alone, so its name and its length must say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from yolomish.config import ModelConfig, shipped
from yolomish.darknet.weights import fitting_classes
from yolomish.errors import YolomishError
from yolomish.networks import find_model
from yolomish.weights.catalogue import published


def structure_of(path: Path, cfg: str = "", model: str = "") -> ModelConfig:
    """The network of a ``.weights`` or ``.conv.N`` file, with as many classes as make its length.

    That of ``cfg`` or ``model`` where one is given; else of the published file that it is by name and length; else the
    shipped model by which its name begins, as Darknet's yolov4-tiny-mine_best.weights, or that alone has its length.
    YolomishError where that leaves none or several.
    """
    if given := cfg or model:
        config = find_model(given)
        if config.cfg and given not in shipped("models"):  # a user's cfg says its own number of classes
            return config
        return _with_classes(path, config) or config
    wanted = published(path.name)
    if wanted and wanted.size == path.stat().st_size:
        return find_model(wanted.model)
    for name in sorted(shipped("models"), key=len, reverse=True):
        if path.name.startswith(name) and (found := _with_classes(path, find_model(name))):
            return found
    fitting = [found for name in shipped("models") if (found := _with_classes(path, find_model(name)))]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise YolomishError(f"{path} has the length of {' and of '.join(f.name for f in fitting)}: name its --model or --cfg")
    raise YolomishError(
        f"{path}: {path.stat().st_size:,} bytes are no shipped model with any number of classes: name its --cfg or --model"
    )


def _with_classes(path: Path, config: ModelConfig) -> ModelConfig | None:
    """The model with the classes that make the file's length; None where no number does."""
    classes = fitting_classes(path, config)
    return replace(config, num_classes=classes) if classes else None
