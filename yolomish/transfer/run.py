"""The steps of a transfer, each measured on the validation split."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from yolomish.activations import find_activation
from yolomish.config import DataConfig, TrainConfig, check_train, load_recipe
from yolomish.data.datasets import DetectionData
from yolomish.data.loader import eval_loader, steps_per_epoch
from yolomish.errors import YolomishError
from yolomish.networks import Network
from yolomish.networks.scope import find_slots
from yolomish.nn.blocks import set_activation
from yolomish.ops.device import choose_device
from yolomish.tasks.detection.protocol import training_protocol
from yolomish.tasks.detection.task import DetectionTask
from yolomish.training.optim import build_optimizer, burn_in_steps
from yolomish.training.run import Run
from yolomish.transfer.blend import end_blend, re_estimate, set_share, start_blend
from yolomish.types import Losses, Metrics
from yolomish.weights.load import LoadedNetwork

Log = Callable[[str], Any]


@dataclass(frozen=True, kw_only=True)
class TransferOptions:
    """``images`` of the training split, at most, re-estimate the batch norms, ``batch`` at a time. Of the ``epochs`` of training
    (0: none) the first ``anneal`` pass from the old activation to the new; ``distil`` learns the original network's raw maps
    instead of the labels. ``recipe`` says the loss and the augmentation, but for mosaic and its like."""

    to: str
    scope: str = "all"
    images: int = 1000
    batch: int = 8
    epochs: int = 0
    anneal: int = 0
    distil: bool = False
    peak_lr: float = 1e-4
    recipe: str = "darknet"
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What the network finds after a step."""

    name: str
    metrics: Metrics


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """The network with its new activation, the configuration to save it with, and what each stage found by ``protocol``."""

    loaded: LoadedNetwork
    config: TrainConfig
    stages: tuple[Stage, ...]
    protocol: str


class _Task(DetectionTask):
    """The original network's raw maps instead of labels: the mean squared difference over the map's variance, of every head."""

    losses = ("distil",)

    def loss_scale(self, config: TrainConfig) -> float:
        return 1.0


@dataclass(kw_only=True)
class _Distilled(Run):
    teacher: Network

    def losses(self, images: Tensor, targets: Tensor) -> Losses:
        with torch.no_grad():
            wanted = self.teacher(images)
        differences = [(a - b).square().mean() / b.var() for a, b in zip(self.forward(images), wanted, strict=True)]
        return Losses(parts={"distil": torch.stack(differences).mean()})


def transfer(loaded: LoadedNetwork, data: DataConfig, options: TransferOptions, *, log: Log = print) -> Transfer:
    """Put ``options.to`` into a trained network and measure it: as it was, swapped, with batch norms re-estimated, and after
    each epoch of training, whose batch norms are re-estimated too. ``loaded`` is left as it was.

    First the original's own batch norms are re-estimated, on a copy: what that alone costs with these images. YolomishError
    for options that do not go together, data of other classes and a network that has the activation already.
    """
    name, device = find_activation(options.to).name, choose_device(options.device)
    if options.anneal > options.epochs or (options.distil and not options.epochs):
        raise YolomishError(f"--anneal and --distil are parts of the training: give --epochs {options.anneal or 1} or more")
    original = copy.deepcopy(loaded.network).to(device)
    if not original.heads:
        raise YolomishError(f"{original.name} is a classifier: swap is for detectors")
    network = copy.deepcopy(original)
    blocks = {n: b for n, b in find_slots(network, options.scope).items() if b.activation_name != name}
    if not blocks:
        raise YolomishError(f"{original.name} has {name} in {options.scope} already: there is nothing to swap")
    swapped = replace(network.config, swap=(*network.config.swap, f"{options.scope}={name}"))
    config = _configuration(swapped, network, data, options)
    task = _Task() if options.distil else DetectionTask()
    train = task.open(data, "train").with_classes(loaded.names, original.name)
    val = task.open(data, "val").with_classes(loaded.names, original.name)
    protocol = task.describe_protocol(original, val, config)
    log(protocol)
    stages: list[Stage] = []

    def measured(name: str, network: Network) -> None:
        stages.append(Stage(name=name, metrics=task.evaluate(network, val, config, device)))
        log(f"{name}: " + "  ".join(f"{k} {stages[-1].metrics.values[k]:.4f}" for k in task.metrics))

    estimating = train.first(options.images)
    count = f"of {len(estimating)} training images"
    measured(f"original, {'+'.join(original.activations())}", original)
    control = copy.deepcopy(original)
    re_estimate(control, _batches(control, estimating, options.batch, device))
    measured(f"original, batch norms {count}", control)
    for block in blocks.values():
        set_activation(block, name)
    network.to(device)
    network.config = swapped
    measured(f"{name} put in", network)
    re_estimate(network, _batches(network, estimating, options.batch, device))
    measured(f"{name}, batch norms {count}", network)
    if options.anneal:  # from the original on
        network = copy.deepcopy(original)
        network.config = swapped
        blocks = {path: block for path, block in network.slots().items() if path in blocks}
        start_blend(blocks, name)
        network.to(device)
    for epoch, done in _epochs(task, original, network, blocks, config, options, train, val, device):
        if epoch == options.anneal and options.anneal:
            end_blend(blocks, name)
        re_estimate(network, _batches(network, estimating, options.batch, device))
        measured(f"epoch {epoch}, {done}, batch norms {count}", network)
    result = replace(loaded, network=network.cpu().eval(), notes=(), training=config, from_darknet=False)
    return Transfer(loaded=result, config=config, stages=tuple(stages), protocol=protocol)


def _configuration(model: Any, network: Network, data: DataConfig, options: TransferOptions) -> TrainConfig:
    recipe = load_recipe(options.recipe, model)
    config = replace(
        recipe,
        model=model,
        data=data,
        image_size=network.input.size_hw,
        resize=network.input.resize,
        epochs=max(options.epochs, 1),
        batch=options.batch,
        mini_batch=0,
        optimizer="adamw",
        peak_lr=options.peak_lr,
        schedule="cosine",
        burn_in=0,
        burn_in_epochs=0.0,
        mosaic=0.0,
        mixup=0.0,
        cutmix=0.0,
        multi_scale=0.0,
        close_mosaic=0,
        adversarial=0.0,
        ema=False,
        seed=options.seed,
        device=options.device,
    )
    check_train(config)
    return config


def _batches(network: Network, data: DetectionData, batch: int, device: torch.device) -> Iterator[Tensor]:
    """The images as an evaluation shows them, with nothing changed."""
    resize = training_protocol(network.input).resize_image
    for group in eval_loader(data, size_hw=network.input.size_hw, resize=resize, batch=batch):
        if len(group.images) > 1 or len(data) == 1:  # a last image alone would weigh as much as a batch
            yield network.input.normalise(group.images.to(device))


def _epochs(
    task: DetectionTask,
    original: Network,
    network: Network,
    blocks: Any,
    config: TrainConfig,
    options: TransferOptions,
    train: DetectionData,
    val: DetectionData,
    device: torch.device,
) -> Iterator[tuple[int, str]]:
    """Train epoch after epoch; after each its number, from 1, and what it was."""
    if not options.epochs:
        return
    steps = steps_per_epoch(len(train), config)
    settings: dict[str, Any] = {
        "config": config,
        "task": task,
        "device": device,
        "train": train,
        "val": val,
        "network": network,
        "forward": network,
        "optimizer": build_optimizer(network.requires_grad_(True), config),
        "scaler": torch.amp.GradScaler(device.type, enabled=False),
        "average": None,
        "steps": steps,
        "burn_in": burn_in_steps(steps * config.epochs, steps, config),
        "frozen": frozenset(),
    }
    teacher = original.eval().requires_grad_(False)
    run = _Distilled(**settings, teacher=teacher) if options.distil else Run(**settings)
    for epoch in range(options.epochs):
        run.train_mode()
        losses: Sequence[float] = [0.0] * len(task.losses)
        for step, batch in enumerate(task.loader(train, config, network, epoch=epoch)):
            number = epoch * steps + step + 1
            if epoch < options.anneal:
                set_share(blocks, number / (options.anneal * steps))
            values, _ = run.step([batch], number)
            losses = [a + b / steps for a, b in zip(losses, values.tolist(), strict=True)]
        named = ", ".join(f"{name} {value:.3g}" for name, value in zip(task.losses, losses, strict=True))
        how = "annealed" if epoch < options.anneal else "trained"
        yield epoch + 1, f"{how} with {named}"
