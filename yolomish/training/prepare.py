"""A run made ready: data, model, optimiser and average from a configuration, from initial weights or a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.ops import DropBlock2d

from yolomish.config import TrainConfig, check_train, config_difference, from_dict
from yolomish.darknet.weights import is_darknet_file, read_weights
from yolomish.data.datasets import DetectionData, open_data
from yolomish.data.loader import steps_per_epoch
from yolomish.errors import YolomishError
from yolomish.evaluation.coco import evaluate
from yolomish.kernels import describe, using_kernels
from yolomish.networks import YOLOv4, build_network
from yolomish.nn.sync_norm import synchronise_norms
from yolomish.ops.device import choose_device
from yolomish.ops.distributed import gather, rank, share, sum_over_ranks, world_size
from yolomish.tasks.detection.loss import detection_loss, gradient_scale
from yolomish.tasks.detection.predict import predict
from yolomish.training.memory import AMP_TYPES, cuda_step_peak, forward_settings, largest_fitting
from yolomish.training.optim import EMA, build_optimizer, burn_in_steps, set_step
from yolomish.training.record import Log
from yolomish.types import Batch, CocoMetrics, LossParts, ResizeMode
from yolomish.weights.checkpoint import read_checkpoint
from yolomish.weights.store import locate_weights

MAY_CHANGE = ("epochs", "workers", "device", "cache")  # between a run and its resumption
DROPBLOCK_SIZE = 3  # cells of the backbone's three outputs


@dataclass(kw_only=True)
class Run:
    """What a training step needs. ``forward`` is the model, wrapped for several processes or compiled."""

    config: TrainConfig
    device: torch.device
    train: DetectionData
    val: DetectionData
    model: YOLOv4
    forward: Callable[[Tensor], tuple[Tensor, ...]]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: EMA | None
    steps: int
    burn_in: int

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.steps * self.config.epochs

    def step(self, batches: Sequence[Batch], number: int) -> tuple[Tensor, float]:
        """Optimiser step ``number`` (from 1) over its mini-batches; gives (3,) box, objectness and class losses and the rate.

        Chance inside a step is keyed by the seed and ``number``, so a resumed run draws what the whole one drew.
        """
        torch.manual_seed((self.config.seed * 1_000_003 + number) * world_size() + rank())
        lr = set_step(self.optimizer, number, self.total_steps, self.burn_in, self.config)
        self.optimizer.zero_grad(set_to_none=True)
        values = torch.zeros(3, device=self.device)
        for i, batch in enumerate(batches):
            images = self.images(batch)
            if self.config.adversarial and number % 2 == 0:
                images = self.attacked(images)
            wait = self.forward.no_sync() if world_size() > 1 and i + 1 < len(batches) else nullcontext()  # type: ignore[attr-defined]
            with wait:
                parts = self.losses(images, batch.targets)
                scale = gradient_scale(self.config)
                self.scaler.scale(parts.total * (scale * world_size())).backward()  # the wrapper averages, we sum
            values += torch.stack((parts.box, parts.objectness, parts.classes)).detach() * scale
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema:
            self.ema.update(self.model)
        return sum_over_ranks(values), lr

    def images(self, batch: Batch) -> Tensor:
        """The batch's images on the device, float32 in 0..1."""
        layout = torch.channels_last if self.config.channels_last else torch.contiguous_format
        return batch.images.to(self.device, non_blocking=True).float().div_(255).contiguous(memory_format=layout)

    def losses(self, images: Tensor, targets: Tensor) -> LossParts:
        """The losses of images (B, 3, H, W) in 0..1 with targets (T, 6)."""
        mixed = self.config.amp != "off" and self.device.type == "cuda"
        autocast = torch.autocast(self.device.type, dtype=AMP_TYPES.get(self.config.amp, torch.bfloat16), enabled=mixed)
        with autocast, forward_settings(self.config):
            maps = self.forward(images)
        return detection_loss(maps, self.model.heads, targets.to(self.device, non_blocking=True), self.config)

    def attacked(self, images: Tensor) -> Tensor:
        """Self-adversarial images (arXiv:2004.10934, 3.3): moved by ``adversarial`` to make the network see no object."""
        images = images.requires_grad_()
        with forward_settings(self.config):
            maps = self.model(images)
        seen = detection_loss(maps, self.model.heads, images.new_zeros((0, 6)), self.config).objectness
        (gradient,) = torch.autograd.grad(seen, images)
        return (images.detach() - self.config.adversarial * gradient.sign()).clamp(0, 1)

    def train_mode(self) -> None:
        """Training mode, with frozen parts' batch norms left as they are."""
        self.model.train()
        for name, module in self.model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and name.startswith(self.config.freeze or ("\0",)):
                module.eval()

    def evaluate(self) -> CocoMetrics:
        """COCO metrics on the validation split with the averaged weights, or the weights themselves without EMA."""
        model = cast(YOLOv4, self.ema.model) if self.ema else self.model
        model.eval()
        with forward_settings(self.config):
            results = predict(
                model,
                self.val,
                image_size=self.config.image_size,
                resize=cast(ResizeMode, self.config.resize),
                conf=0.001,
                iou=0.6,
                nms="greedy-diou",
                batch=self.config.mini_batch or self.config.batch,
                device=self.device,
                max_det=300,
                progress=False,
            )
        metrics = evaluate(self.val.coco(), results, self.val.names, self.val.category_ids) if rank() == 0 else None
        return cast(CocoMetrics, share(metrics))


def prepare(config: TrainConfig, initial_weights: str, log: Log) -> Run:
    """Open the data and build everything for ``config``; the number of classes is the data's."""
    check_train(config)
    if config.mini_batch >= 0 and (config.mini_batch or config.batch) % world_size():
        raise YolomishError(f"mini_batch {config.mini_batch or config.batch} must be a multiple of the {world_size()} processes")
    train, val = open_data(config.data, "train"), open_data(config.data, "val")
    if tuple(train.names) != tuple(val.names):
        raise YolomishError(f"train and val have different classes: {', '.join(train.names)} and {', '.join(val.names)}")
    config = replace(config, model=replace(config.model, num_classes=len(train.names)))
    if config.cache == "ram":
        log(f"{train.keep_in_memory() / 2**20:.0f} MiB of decoded training images held in memory")
    elif config.cache == "disk":
        log(f"{train.keep_on_disk() / 2**20:.0f} MiB of decoded training images held on disk")
    device = torch.device(choose_device(config.device))
    if config.amp != "off" and device.type != "cuda":
        log(f"amp {config.amp} is for CUDA: training on {device.type} in float32")
    torch.manual_seed(config.seed)
    model = build_network(config.model)
    if initial_weights:
        load_initial_weights(model, config, initial_weights, log)
    _freeze(model, config.freeze, log)
    if config.dropblock:
        _drop_blocks(model.backbone, config.dropblock)
    model = model.to(device)
    if config.channels_last:
        model = cast(YOLOv4, model.to(memory_format=torch.channels_last))
    if config.mini_batch < 0:
        config = replace(config, mini_batch=_mini_batch_by_memory(model, config, device, log))
    ema = EMA(model, config.ema_decay) if config.ema else None
    forward: Any = model
    if world_size() > 1:
        model = cast(YOLOv4, synchronise_norms(model, device))
        devices = [device.index] if device.type == "cuda" else None
        forward = DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)
    if config.compile:
        forward = torch.compile(forward)
    steps = steps_per_epoch(len(train), config)
    burn_in = burn_in_steps(steps * config.epochs, steps, config)
    if burn_in < config.burn_in:
        log(f"burn-in shortened from {config.burn_in} to {burn_in} steps, a fifth of the run's {steps * config.epochs}")
    count = sum(p.numel() for p in model.parameters())
    log(
        f"{config.model.name} ({config.model.activation} backbone, {config.model.neck_activation} neck), "
        f"{count / 1e6:.2f} M parameters on {device}; {len(train)} training and {len(val)} validation images, "
        f"{len(train.names)} classes; {steps} steps an epoch"
    )
    mixed = config.amp != "off" and device.type == "cuda"
    with using_kernels(config.kernels):
        acts = [config.model.activation, config.model.neck_activation]
        kept = "; activations made again in backward" if config.memory == "lean" else ""
        log(describe(device, AMP_TYPES[config.amp] if mixed else torch.float32, acts) + kept)
    return Run(
        config=config,
        device=device,
        train=train,
        val=val,
        model=model,
        forward=forward,
        optimizer=build_optimizer(model, config),
        scaler=torch.amp.GradScaler(device.type, enabled=config.amp == "fp16" and device.type == "cuda"),
        ema=ema,
        steps=steps,
        burn_in=burn_in,
    )


def _mini_batch_by_memory(model: YOLOv4, config: TrainConfig, device: torch.device, log: Log) -> int:
    if device.type != "cuda":
        log("mini_batch -1 asks for the GPU's memory and there is none: the whole batch at once")
        return 0
    budget = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    model.train()
    found = largest_fitting(config.batch, world_size(), budget, lambda n: cuda_step_peak(model, model.heads, config, device, n))
    found = min(gather(found))
    log(f"mini_batch {found} of {config.batch}: the largest whose step fits in {budget / 2**30:.1f} GiB")
    return found


def _drop_blocks(backbone: nn.Module, probability: float) -> None:
    """DropBlock (arXiv:1810.12890) on the backbone's outputs while training, where a map is not smaller than a block."""
    drop = DropBlock2d(probability, DROPBLOCK_SIZE)

    def hook(module: nn.Module, _: Any, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if not module.training:
            return maps
        return tuple(drop(x) if min(x.shape[2:]) >= DROPBLOCK_SIZE else x for x in maps)

    backbone.register_forward_hook(hook)


def _freeze(model: nn.Module, prefixes: tuple[str, ...], log: Log) -> None:
    if not prefixes:
        return
    frozen = [(n, p) for n, p in model.named_parameters() if n.startswith(prefixes)]
    for prefix in prefixes:
        if not any(n.startswith(prefix) for n, _ in frozen):
            known = sorted({n.split(".")[0] for n, _ in model.named_parameters()})
            raise YolomishError(f"freeze: no parameter's name starts with {prefix!r}; they start with {', '.join(known)}")
    for _, parameter in frozen:
        parameter.requires_grad_(False)
    log(f"frozen: {len(frozen)} parameters, {sum(p.numel() for _, p in frozen) / 1e6:.2f} M, under {', '.join(prefixes)}")


def load_initial_weights(model: YOLOv4, config: TrainConfig, weights: str, log: Log) -> None:
    """Start ``model`` from a ``.pt`` or Darknet file or a published name; say what fitted, YolomishError where little does."""
    weights = str(locate_weights(weights))
    if is_darknet_file(weights):
        source = _read_darknet(model, config, weights)
        if config.model.box_form != "exp":
            log(f"{weights} was probably trained with box_form exp, this model has {config.model.box_form}: its boxes start anew")
    else:
        content = read_checkpoint(weights)
        source = content["ema"] or content["model"]
        theirs = content["config"]["model"]
        for key in ("activation", "neck_activation", "box_form"):
            if theirs.get(key, "exp") != getattr(config.model, key):
                log(f"{weights} was trained with {key} {theirs.get(key, 'exp')}, this model has {getattr(config.model, key)}")
    own = model.state_dict()
    fitting = {k: v for k, v in source.items() if k in own and own[k].shape == v.shape}
    if 2 * len(fitting) < len(own):
        raise YolomishError(f"{weights} fits {len(fitting)} of this model's {len(own)} tensors: is it another model?")
    model.load_state_dict(fitting, strict=False)
    left = [k for k in own if k not in fitting]
    rest = f"; left as initialised: {', '.join(left[:6])}{', ...' if len(left) > 6 else ''}" if left else ""
    log(f"{weights}: {len(fitting)} of {len(own)} tensors loaded{rest}")


def _read_darknet(model: YOLOv4, config: TrainConfig, weights: str) -> dict[str, Any]:
    """The state that a ``.weights`` file holds, whole or cut off, with this model's number of classes or COCO's."""
    try:
        header = read_weights(weights, model)
    except YolomishError:
        if config.model.num_classes == 80:
            raise
        model = build_network(replace(config.model, num_classes=80))
        header = read_weights(weights, model)
    read = [part for _, *parts in islice(model.darknet_order(), header.convolutions) for part in parts if part is not None]
    tensors = {tensor.data_ptr() for part in read for tensor in part.state_dict().values()}
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.data_ptr() in tensors}


def check_same(config: TrainConfig, saved: dict[str, Any], path: Path) -> None:
    """YolomishError naming every setting in which a checkpoint's run differs from ``config``, but for a few harmless ones."""
    theirs = from_dict(TrainConfig, saved["config"], f"configuration in {path}")
    changed = [f"{k} ({a} -> {b})" for k, (a, b) in config_difference(theirs, config).items() if k not in MAY_CHANGE]
    if changed:
        raise YolomishError(f"cannot resume {path} with other settings: {', '.join(changed)}")


def restore(run: Run, saved: dict[str, Any]) -> None:
    """Put a checkpoint's weights, optimiser, scaler and average into ``run``."""
    run.model.load_state_dict(saved["model"])
    run.optimizer.load_state_dict(saved["optimizer"])
    run.scaler.load_state_dict(saved["scaler"])
    if run.ema:
        cast(nn.Module, run.ema.model).load_state_dict(saved["ema"])
        run.ema.updates = int(saved["ema_updates"])
