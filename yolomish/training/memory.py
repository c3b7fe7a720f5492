"""The largest mini-batch that a GPU holds, found by trying."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from yolomish.config import TrainConfig
from yolomish.data.loader import largest_size
from yolomish.errors import YolomishError
from yolomish.kernels import lean_memory, using_kernels
from yolomish.networks import Network
from yolomish.ops.distributed import alone
from yolomish.tasks.base import Task

RESERVE = 0.1  # of the budget: fragmentation, the data's odd batch with many objects
AMP_DEVICES = {"bf16": ("cuda", "cpu"), "fp16": ("cuda",)}


@contextmanager
def forward_settings(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Forward passes inside use the run's precision and kernels and keep what its memory setting says."""
    dtype = autocast_type(config.amp, device)
    autocast = torch.autocast(device.type, dtype) if dtype else nullcontext()
    with autocast, using_kernels(config.kernels), lean_memory(config.memory == "lean"):
        yield


def autocast_type(amp: str, device: torch.device) -> torch.dtype | None:
    """The half precision of a run on ``device``, None for float32: bf16 is for CUDA and CPUs, fp16 for CUDA alone."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(amp) if device.type in AMP_DEVICES.get(amp, ()) else None


def largest_fitting(batch: int, processes: int, budget: int, measure: Callable[[int], int | None]) -> int:
    """The largest divisor of ``batch`` that ``processes`` share evenly and whose peak stays in ``budget`` bytes less 10 %.

    ``measure(n)`` returns the peak bytes of a step with n images in one process, or None where memory ran out. Tries
    upwards, so that the last trial alone may fail. YolomishError where not even the smallest fits.
    """
    sizes = [n for n in range(1, batch + 1) if batch % n == 0 and n % processes == 0]
    if not sizes:
        raise YolomishError(f"batch {batch} is no multiple of the {processes} processes")
    best = 0
    for size in sizes:
        peak = measure(size // processes)
        if peak is None or peak > (1 - RESERVE) * budget:
            break
        best = size
    if not best:
        raise YolomishError(
            f"not even {sizes[0] // processes} image(s) fit in {budget / 2**30:.1f} GiB of GPU memory: lower --imgsz or the model"
        )
    return best


def cuda_step_peak(task: Task[Any], network: Network, config: TrainConfig, device: torch.device, images: int) -> int | None:
    """Peak bytes of a forward and backward pass of grey images at the run's largest size, momentum and average counted in.

    None where CUDA ran out of memory. The network's gradients and BN statistics are as before.
    """
    state = {k: v.clone() for k, v in network.state_dict().items() if "running_" in k or "num_batches" in k}
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        size_hw = largest_size(config, network.input.stride)
        x = torch.full((images, network.input.channels, *size_hw), 0.5, device=device)
        if config.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        with forward_settings(config, device), alone():
            maps = network(x)
            loss = task.loss(network, maps, task.trial_targets(config, images).to(device), config).total
        loss.backward()
        weights = sum(p.numel() * p.element_size() for p in network.parameters())
        return torch.cuda.max_memory_allocated(device) + weights * (1 + (config.optimizer == "adamw") + (config.ema_decay > 0))
    except torch.cuda.OutOfMemoryError:
        return None
    finally:
        network.zero_grad(set_to_none=True)
        network.load_state_dict(state, strict=False)
        torch.cuda.empty_cache()
