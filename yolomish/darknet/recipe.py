"""The training that a Darknet cfg states, as a TrainConfig; what is not honoured is said with file and line."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from yolomish.config import ModelConfig, TrainConfig
from yolomish.darknet.cfg import ANYWHERE, FREE, KEYS, WORDS, Cfg, Section
from yolomish.networks.base import Network
from yolomish.networks.registry import outline

# obeyed by the heads themselves: darknet/network.py, tasks/detection/darknet_loss.py
LOSS_KEYS = (
    "ignore_thresh truth_thresh iou_thresh iou_thresh_kind iou_loss iou_normalizer obj_normalizer delta_normalizer max_delta "
    "objectness_smooth label_smooth_eps focal_loss counters_per_class"
).split()
NEUTRAL = {"learning_rate": 1.0, "aspect": 1.0}  # values that change nothing in Darknet, where that is not 0
POLICY_KEYS = "steps scales step scale gamma learning_rate_min sgdr_cycle sgdr_mult seq_scales power"
IDLE = {  # in Darknet too
    "detect": f"angle aspect max_crop min_crop label_smooth_eps B1 B2 eps attention {POLICY_KEYS}",
    "classify": f"gaussian_noise mosaic_bound resize_step dynamic_minibatch B1 B2 eps attention {POLICY_KEYS}",
    "yolo": "cls_normalizer uc_normalizer beta1 jitter resize random max",
    "dropout": "dropblock_size_rel dropblock_size_abs",
}
INSTEAD = {
    "adam": "is not honoured: SGD trains, --optimizer adamw is near Adam",
    "adversarial_lr": "is not honoured: --adversarial 0.01 is self-adversarial training with a step of the image's own units",
    "blur": "is not honoured: images are not blurred",
    "gaussian_noise": "is not honoured: images get no noise",
    "cutmix": "is not honoured: Darknet's detectors have none either",
    "mosaic_bound": "is not honoured: boxes of a mosaic are clipped to the whole, not to their tile",
    "dynamic_minibatch": "is not honoured: a mini-batch keeps its number of images at every size",
    "dropblock": "is not honoured: single values are dropped",
    "stopbackward": "is not honoured: all is trained from the first step on",
    "max": "is not honoured: an image may have any number of boxes",
}


@dataclass(frozen=True, kw_only=True)
class CfgRecipe:
    """``config`` for training, what was ``taken`` of the cfg, one line for each section, and what else is to be said of it."""

    config: TrainConfig
    taken: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(kw_only=True)
class _Reading:
    """A section with what has been taken of it and said about it."""

    section: Section
    taken: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    said: set[str] = field(default_factory=set)
    task: str = "detect"
    idle: list[str] = field(default_factory=list)

    def number(self, key: str, default: float) -> float:
        """A key's number, which is taken."""
        if key in self.section.options and key not in self.taken:
            self.taken.append(key)
        return self.section.number(key, default)

    def integer(self, key: str, default: int, low: int = 0) -> int:
        """A key's whole number, which is taken."""
        self.number(key, default)
        return self.section.integer(key, default, low, 10**9)

    def say(self, key: str, what: str) -> None:
        """Note what becomes of a key."""
        self.said.add(key)
        self.notes.append(str(self.section.fault(key, what)))

    def rest(self) -> None:
        """Note every other key of training that is neither neutral nor without effect in Darknet, which are listed."""
        kind = self.section.kind
        for key, option in self.section.options.items():
            training = "training" in (KEYS[kind].effect(key), ANYWHERE.effect(key))
            neutral = key not in (*WORDS, *FREE) and self.section.numbers(key) == (NEUTRAL.get(key, 0.0),)
            if not training or neutral or key in self.taken or key in self.said:
                continue
            if key in IDLE.get(self.task if kind == "net" else kind, "").split():
                self.idle.append(f"{key}={option.value} (line {option.line})")
            else:
                self.say(key, INSTEAD.get(key, "is not honoured"))

    def line(self) -> str:
        """What was taken, with its lines."""
        options = self.section.options
        texts = [f"{key}={options[key].value} (line {options[key].line})" for key in self.taken]
        return f"{self.section.where}: taken from [{self.section.kind}] of line {self.section.line}: {', '.join(texts)}"


def cfg_task(cfg: Cfg) -> str:
    """What a cfg's network is trained for."""
    return "detect" if any(section.kind == "yolo" for section in cfg.sections) else "classify"


def cfg_recipe(model: ModelConfig, cfg: Cfg, steps_per_epoch: Callable[[TrainConfig], int]) -> CfgRecipe:
    """The training of ``cfg``, with the defaults of src/parser.c parse_net_options, for ``model``, which is made of it.

    ``steps_per_epoch`` counts the optimiser steps of an epoch with a configuration's batch: Darknet counts steps, so that
    ``max_batches`` becomes as many epochs as reach it, rounded up. Rates keep the steps at which they fall. YolomishError
    with file and line for a value that nothing can be trained with.
    """
    task = cfg_task(cfg)
    net, heads = _Reading(section=cfg.sections[0], task=task), [_Reading(section=s) for s in cfg.sections if s.kind == "yolo"]
    batch, mini_batch = _batch(net)
    network = outline(model)
    settings = _net_settings(net) | _frozen(cfg, network)
    if heads:
        settings |= _detector_settings(net) | _last_head_settings(heads[-1], network.input.stride, net)
    else:
        settings |= _classifier_settings(net, model)
    config = TrainConfig(
        model=model,
        image_size=model.image_size,
        batch=batch,
        mini_batch=mini_batch,
        optimizer="sgd",
        nesterov=False,
        **settings,
    )
    steps = steps_per_epoch(config)
    most = net.integer("max_batches", 0)
    if most < 1:
        raise net.section.fault("max_batches", "must state how many steps to train: max_batches=6000")
    epochs = math.ceil(most / steps)
    config = replace(
        config,
        epochs=epochs,
        # src/detector.c train_detector, calc_map_for_each; src/classifier.c train_classifier, calc_topk_for_each
        eval_every=min(epochs, math.ceil(max(100, (4 if heads else 2) * steps) / steps)),
        **_schedule(net, most, steps * epochs),
    )
    for head in heads:
        head.taken += [key for key in LOSS_KEYS if key in head.section.options]
        if "counters_per_class" in head.section.options:
            head.number("cls_normalizer", 1.0)
    others = [_Reading(section=s) for s in cfg.sections[1:] if s.kind != "yolo"]
    for other in others:
        other.taken += [key for key in ("probability", "stopbackward") if other.section.text(key) and _taken(other.section, key)]
    readings = [net, *others, *heads]
    for reading in readings:
        reading.rest()
    length = f"max_batches={most} becomes {epochs} epochs of {steps} steps, {epochs * steps} steps"
    if epochs * steps > most:
        length += f": {epochs * steps - most} more, to end the last epoch"
    taken = (*(r.line() for r in readings if r.taken), f"{net.section.where}: {length}")
    notes = [*cfg.notes, *(note for r in readings for note in r.notes)]
    if idle := [text for r in readings for text in r.idle]:
        kind = "detector" if heads else "classifier"
        notes.append(f"{net.section.where}: without effect on a {kind}'s training, in Darknet too: {', '.join(idle)}")
    return CfgRecipe(config=config, taken=taken, notes=tuple(notes))


def _taken(section: Section, key: str) -> bool:
    return section.kind == "dropout" if key == "probability" else section.number(key, 0) == 1


def _batch(net: _Reading) -> tuple[int, int]:
    """Images of a step and of a mini-batch, which subdivisions make whole as Darknet's division does."""
    batch, parts = net.integer("batch", 1, 1), net.integer("subdivisions", 1, 1)
    if parts > batch:
        raise net.section.fault("subdivisions", f"is more than batch={batch}: not one image would be in a mini-batch")
    if batch % parts:
        net.say("subdivisions", f"does not divide batch={batch}: {batch // parts * parts} images make a step, as in Darknet")
    if batch == 1:
        net.say("batch", "is for detection: train with --batch 64 --mini-batch 8, or as many as fit")
    return batch // parts * parts, batch // parts


def _net_settings(net: _Reading) -> dict[str, Any]:
    """Optimiser and what is done to each image, of [net]."""
    average = net.number("ema_alpha", 0)
    if average:
        net.say("ema_alpha", "averages from the first step, Darknet from half of max_batches")
    return {
        "peak_lr": net.number("learning_rate", 0.001),
        "momentum": net.number("momentum", 0.9),
        "weight_decay": net.number("decay", 0.0001),
        "burn_in": net.integer("burn_in", 0),
        "burn_in_power": net.number("power", 4),
        "ema": average != 0,
        "ema_decay": average or TrainConfig.ema_decay,
        "flip": 0.5 if net.number("flip", 1) else 0.0,
        "hue": net.number("hue", 0),
        "saturation": _factor(net, "saturation"),
        "exposure": _factor(net, "exposure"),
    }


def _detector_settings(net: _Reading) -> dict[str, Any]:
    """What src/data.c load_data_detection reads of [net] besides."""
    mosaic = net.number("mosaic", 0) != 0
    mixup = net.number("mixup", 0) == 1 and not mosaic
    if mixup:
        net.say("mixup", "blends by Beta(8, 8), Darknet by halves")
    return {
        "loss": "darknet",
        "assignment": "shape-iou",
        "geometry": "jitter",
        "mosaic": 0.5 if mosaic else 0.0,  # every other chunk
        "mixup": 0.5 if mixup else 0.0,
        "resize": "letterbox" if net.number("letter_box", 0) else "stretch",
    }


def _classifier_settings(net: _Reading, model: ModelConfig) -> dict[str, Any]:
    """What src/data.c load_data_augment and src/image.c random_augment_image read of [net] besides."""
    height, width = model.image_size
    low, high = net.number("min_crop", width), net.number("max_crop", 2 * width)
    if not 0 < low <= high:
        key = "max_crop" if "max_crop" in net.section.options else "min_crop"
        raise net.section.fault(key, "must be at least min_crop, over 0")
    if low != width:
        net.say("min_crop", f"is not honoured: images are cut from {width} px up, without a border repeated around smaller ones")
    if high > width:
        net.say("max_crop", "draws the area of a crop evenly, Darknet the image's side")
    mixing = [key for key in ("mosaic", "cutmix") if net.number(key, 0)]
    if not mixing and net.number("mixup", 0) == 1:
        mixing = ["mixup"]
    if mixing:
        net.say(mixing[0], "mixes each image by chance, Darknet all of a batch or none")
    if "cutmix" in mixing:
        net.say("cutmix", "cuts out a window by Beta(1, 1) of the area, Darknet one of 9 to 64 %")
    smooth, classes = net.number("label_smooth_eps", 0), model.num_classes
    if not 0 <= smooth < 1:
        raise net.section.fault("label_smooth_eps", "must be at least 0 and under 1")
    return {
        "task": "classify",
        "eval_crop": 1.0,  # validate_classifier_single
        "mosaic": 0.0,
        **dict.fromkeys(mixing, 0.5 / max(len(mixing), 1)),
        "mixup_alpha": 1e6,  # by halves
        "degrees": net.number("angle", 0),
        "crop_area": min(1.0, width * height / high**2),
        "crop_aspect": _factor(net, "aspect"),
        # fill_truth_smooth spreads over the other classes, ours over all
        "label_smoothing": min(1.0, smooth * classes / max(classes - 1, 1)),
    }


def _factor(net: _Reading, key: str) -> float:
    """What src/utils.c rand_scale multiplies or divides by, at least 1."""
    value = net.number(key, 1)
    if value <= 0:
        raise net.section.fault(key, "must be positive")
    return max(value, 1 / value)


def _last_head_settings(head: _Reading, stride: int, net: _Reading) -> dict[str, Any]:
    """What src/detector.c train_detector reads of the last head alone."""
    random = head.number("random", 0)
    if random < 0:
        raise head.section.fault("random", "must not be negative")
    step = net.number("resize_step", 32)
    if random and step != stride:
        net.say("resize_step", f"has sizes in steps of {step:g} px in Darknet, here of the network's stride of {stride} px")
    if "max" in head.section.options:
        head.say("max", INSTEAD["max"])
    return {
        "jitter": head.number("jitter", 0.2),
        "zoom": head.number("resize", 1.0),
        "multi_scale": 1.4 if random == 1 else max(random, 1 / random) if random else 0.0,
    }


def _frozen(cfg: Cfg, network: Network) -> dict[str, Any]:
    """stopbackward=1: backward ends before the last section that has it, and what stands up to there is not trained."""
    layers = cfg.sections[1:]
    last = max((i for i, s in enumerate(layers) if s.number("stopbackward", 0) == 1), default=-1)
    names = dict.fromkeys(name.split(".")[1] for name, _ in network.named_parameters())
    return {"freeze": tuple(f"layers.{index}" for index in names if int(index) <= last)}


def _schedule(net: _Reading, most: int, total: int) -> dict[str, Any]:
    """How the rate falls after the burn-in, src/network.c get_current_rate, over a run of ``total`` steps."""
    section, policy = net.section, net.section.text("policy", "constant")
    constant: dict[str, Any] = {"schedule": "steps", "lr_steps": ()}
    if "policy" in section.options:
        net.taken.append("policy")
    if policy == "steps":
        return constant | _falls(net, most, total)
    if policy == "step" and (scale := section.number("scale", 1)) <= 1:
        every = section.integer("step", 1, 1, 10**9)
        if most / every > 1000:
            raise section.fault("step", "lowers the rate more than a thousand times: choose policy=poly or longer steps")
        net.taken += [key for key in ("step", "scale") if key in section.options]
        return constant | {"lr_steps": _shares(range(every, most, every), total), "lr_step_factor": scale}
    if policy == "sgdr":
        low, cycle = section.number("learning_rate_min", 0.00001), section.integer("sgdr_cycle", most, 1, 10**9)
        net.taken += [key for key in ("learning_rate_min",) if key in section.options]
        if cycle < most:
            net.say("policy", f"is one half cosine over the run: the restart every {cycle} steps is not honoured")
        elif section.integer("burn_in", 0, high=10**9):
            net.say("policy", "is half a cosine from the end of the burn-in, in Darknet from step 0")
        return {"schedule": "cosine", "final_lr_fraction": min(1.0, low / section.number("learning_rate", 0.001))}
    if policy == "poly":
        return {"schedule": "poly", "poly_power": net.number("power", 4)}
    if policy != "constant":
        net.say("policy", "is not honoured: the rate stays as it is after the burn-in; choose --schedule")
    return constant


def _falls(net: _Reading, most: int, total: int) -> dict[str, Any]:
    """policy=steps: the rate times one factor at each of the steps."""
    section = net.section
    for key in ("steps", "scales"):
        if key not in section.options:
            raise section.fault("policy", f"needs {key}=")
    steps, scales = [int(step) for step in section.numbers("steps")], section.numbers("scales")
    net.taken += ["steps", "scales"]
    pairs = list(zip(steps, (*scales, *[1.0] * (len(steps) - len(scales))), strict=False))
    if any(b <= a for a, b in zip((0, *steps), steps, strict=False)):
        raise section.fault("steps", "must rise from one to the next")
    if late := [step for step, _ in pairs if step >= most]:
        net.say("steps", f"is never reached at {', '.join(map(str, late))}, in Darknet too: max_batches={most}")
    factors = [factor for step, factor in pairs if step < most]
    if not factors:
        return {}
    if len(set(factors)) > 1 or not 0 <= factors[0] <= 1:
        net.say("scales", f"must be one factor of at most 1: {min(1.0, factors[0]):g} is taken at every step")
    return {
        "lr_steps": _shares([step for step, _ in pairs if step < most], total),
        "lr_step_factor": min(1.0, max(0.0, factors[0])),
    }


def _shares(steps: Any, total: int) -> tuple[float, ...]:
    """Shares of a run after which the rate falls: half a step before, as Darknet's rate is the lower one at the step itself."""
    return tuple((step - 0.5) / total for step in steps)
