"""A run made ready: data, network, optimiser and average from a configuration, from initial weights or a checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from yolomish.config import RESUMABLE, TrainConfig, check_train, config_difference
from yolomish.data.loader import smallest_step, steps_per_epoch
from yolomish.errors import YolomishError, first_line
from yolomish.files import digest
from yolomish.kernels import describe, using_kernels
from yolomish.networks import Network, build_network
from yolomish.networks.base import within
from yolomish.networks.registry import outline
from yolomish.nn.sync_norm import synchronise_norms
from yolomish.ops.device import bf16_missing, choose_device
from yolomish.ops.distributed import gather, world_size
from yolomish.tasks.base import Task
from yolomish.tasks.registry import find_task
from yolomish.threads import busy_note
from yolomish.training.memory import AMP_DEVICES, autocast_type, cuda_step_peak, largest_fitting
from yolomish.training.optim import build_average, build_optimizer, burn_in_steps
from yolomish.training.record import Log
from yolomish.training.run import Run
from yolomish.weights.checkpoint import config_of, require_finite
from yolomish.weights.load import start_from
from yolomish.weights.store import locate_weights

DROPBLOCK_SIZE = 3  # cells of the backbone's outputs


def with_initial_weights(config: TrainConfig) -> TrainConfig:
    """``config`` with the SHA-256 of the file that it starts from; YolomishError where that is missing or has changed since
    it was recorded."""
    if not config.initial_weights:
        return config
    found = digest(locate_weights(config.initial_weights)).sha256
    if config.initial_weights_sha256 not in ("", found):
        raise YolomishError(
            f"{config.initial_weights} has changed since this run was planned: SHA-256 {found}, "
            f"recorded {config.initial_weights_sha256}"
        )
    return replace(config, initial_weights_sha256=found)


def prepare(config: TrainConfig, log: Log, *, resumed: bool = False) -> Run:
    """Open the data and build everything for ``config``; the number of classes is the data's.

    A ``resumed`` run's weights come from its checkpoint: its initial weights are not read again.
    """
    check_train(config)
    task = find_task(config.task)
    task.check(config, outline(config.model))
    if config.mini_batch >= 0 and (config.mini_batch or config.batch) % world_size():
        raise YolomishError(f"mini_batch {config.mini_batch or config.batch} must be a multiple of the {world_size()} processes")
    if not (resumed and config.initial_weights_sha256):
        config = with_initial_weights(config)
    train, val = task.open(config.data, "train"), task.open(config.data, "val")
    val = val.with_classes(train.names, train.source)
    for line in filter(None, (train.left_out, val.left_out)):
        log(line)
    learnt = set(train.paths)
    if shared := sum(path in learnt for path in val.paths):
        log(f"warning: {shared} of {len(val)} validation images are in train: AP cannot tell what was learnt by heart")
    config = replace(config, model=replace(config.model, num_classes=len(train.names)))
    if config.cache == "ram":
        log(f"{train.keep_in_memory() / 2**20:.0f} MiB of decoded training images held in memory")
    elif config.cache == "disk":
        log(f"{train.keep_on_disk() / 2**20:.0f} MiB of decoded training images held on disk")
    device = torch.device(choose_device(config.device))
    half = autocast_type(config.amp, device)
    if config.amp != "off" and not half:
        log(f"amp {config.amp} is for {' and '.join(AMP_DEVICES[config.amp])}: training on {device.type} in float32")
    elif half and device.type == "cpu" and (missing := bf16_missing()):
        log(f"{missing}: amp {config.amp} computes as asked, but slower than amp off")
    torch.manual_seed(config.seed)
    network = build_network(config.model)
    network.resized(config.image_size, config.resize)
    if config.initial_weights and not resumed:
        start_from(network, locate_weights(config.initial_weights), log)
    frozen = _freeze(network, config.freeze, log)
    if config.dropblock:
        _drop_blocks(network, config.dropblock)
    network = network.to(device)
    if config.channels_last:
        network = cast(Network, network.to(memory_format=torch.channels_last))
    if config.mini_batch < 0:
        config = replace(config, mini_batch=_mini_batch_by_memory(task, network, config, device, log))
    smallest_step(len(train), config, network.input.stride, world_size())
    average = build_average(network, config.ema_decay) if config.ema else None
    forward: Any = network
    if world_size() > 1:
        network = cast(Network, synchronise_norms(network, device))
        devices = [device.index] if device.type == "cuda" else None
        forward = DistributedDataParallel(network, device_ids=devices, broadcast_buffers=False)
    if config.compile:
        forward = torch.compile(forward)
    steps = steps_per_epoch(len(train), config)
    burn_in = burn_in_steps(steps * config.epochs, steps, config)
    if burn_in < config.burn_in:
        log(f"burn-in shortened from {config.burn_in} to {burn_in} steps, a fifth of the run's {steps * config.epochs}")
    count = sum(p.numel() for p in network.parameters())
    parts = ", ".join(f"{' and '.join(names)} {part}" for part in network.parts if (names := network.activations(part)))
    log(
        f"{network.name} ({parts}), {count / 1e6:.2f} M parameters on {device}; {len(train)} training and {len(val)} "
        f"validation images, {len(train.names)} classes; {steps} steps per epoch"
    )
    log(task.describe_protocol(network, val, config))
    with using_kernels(config.kernels):
        kept = "; activations recomputed in backward" if config.memory == "lean" else ""
        log(describe(device, half or torch.float32, list(network.activations())) + kept)
    if device.type == "cpu" and (note := busy_note(training=True)):
        log(note)
    return Run(
        config=config,
        task=task,
        device=device,
        train=train,
        val=val,
        network=network,
        forward=forward,
        optimizer=build_optimizer(network, config),
        scaler=torch.amp.GradScaler(device.type, enabled=half == torch.float16),
        average=average,
        steps=steps,
        burn_in=burn_in,
        frozen=frozen,
    )


def _mini_batch_by_memory(task: Task[Any], network: Network, config: TrainConfig, device: torch.device, log: Log) -> int:
    if device.type != "cuda":
        log("mini_batch -1 asks for the GPU's memory and there is none: the whole batch at once")
        return 0
    budget = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    network.train()
    found = largest_fitting(config.batch, world_size(), budget, lambda n: cuda_step_peak(task, network, config, device, n))
    found = min(gather(found))
    log(f"mini_batch {found} of {config.batch}: the largest whose step fits in {budget / 2**30:.1f} GiB")
    return found


def _drop_blocks(network: Network, probability: float) -> None:
    """DropBlock (arXiv:1810.12890) on the backbone's outputs while training, where a map is not smaller than a block."""
    from torchvision.ops import DropBlock2d  # late: torchvision takes a second to import

    drop = DropBlock2d(probability, DROPBLOCK_SIZE)

    def dropped(x: Tensor) -> Tensor:
        return drop(x) if min(x.shape[2:]) >= DROPBLOCK_SIZE else x

    def hook(module: nn.Module, _: Any, outputs: Any) -> Any:
        if not module.training:
            return outputs
        return tuple(map(dropped, outputs)) if isinstance(outputs, tuple) else dropped(outputs)

    network.get_submodule(network.part("backbone")[-1]).register_forward_hook(hook)


def _freeze(network: Network, wanted: tuple[str, ...], log: Log) -> frozenset[str]:
    """Stop the training of parts by name, or of what lies below a module's or parameter's name; returns the parameters."""
    frozen: set[str] = set()
    for name in wanted:
        found = {n for n, _ in network.named_parameters() if within(n, network.parts.get(name, (name,)))}
        if not found:
            known = ", ".join([*network.parts, *sorted({n.split(".")[0] for n, _ in network.named_parameters()})])
            raise YolomishError(f"freeze: {name!r} is neither a part nor a module of {network.name}: {known}")
        frozen |= found
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in frozen)
    if frozen:
        size = sum(p.numel() for n, p in network.named_parameters() if n in frozen)
        log(f"frozen: {len(frozen)} parameters, {size / 1e6:.2f} M, under {', '.join(wanted)}")
    return frozenset(frozen)


def data_marks(run: Run) -> dict[str, list[Any]]:
    """The number of images and the digest of each split, to tell whether a run goes on with the data that it began with."""
    return {"train": [len(run.train), run.train.digest], "val": [len(run.val), run.val.digest]}


def check_same(run: Run, saved: dict[str, Any], path: Path) -> None:
    """YolomishError naming every setting in which a checkpoint's run differs from ``run``, but for ``RESUMABLE`` ones, and a
    split that has changed since."""
    theirs = config_of(saved, path)
    changed = [f"{k} ({a} -> {b})" for k, (a, b) in config_difference(theirs, run.config).items() if k not in RESUMABLE]
    if changed:
        raise YolomishError(f"cannot resume {path} with other settings: {', '.join(changed)}")
    began = saved["progress"].get("data") or {}  # not in checkpoints of earlier versions
    for split, (count, mark) in data_marks(run).items():
        if split in began and began[split][1] != mark:
            raise YolomishError(
                f"cannot resume {path}: its {split} data has changed, {began[split][0]} images then, {count} now; put back what "
                f"was there, or start a new run from it: --weights {path}"
            )


def restore(run: Run, saved: dict[str, Any], path: Path) -> None:
    """Put a checkpoint's weights, optimiser, scaler and average into ``run``; YolomishError where they are not there or do
    not fit."""
    if saved["optimizer"] is None or saved["scaler"] is None or (run.average and saved["ema"] is None):
        raise YolomishError(
            f"{path} holds weights alone, not a run that can go on: start from it with yolomish train --weights {path}"
        )
    require_finite(saved["model"], path)
    try:
        run.network.load_state_dict(saved["model"])
        run.optimizer.load_state_dict(saved["optimizer"])
        run.scaler.load_state_dict(saved["scaler"])
        if run.average:
            run.average.module.load_state_dict(saved["ema"])
            run.average.n_averaged.fill_(saved["ema_updates"] + 1)
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:  # torch's, by what is wrong
        raise YolomishError(f"{path} does not fit its own run: {first_line(error)}") from None
