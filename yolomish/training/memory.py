"""The largest mini-batch that a GPU holds, found by trying."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from yolomish.config import TrainConfig
from yolomish.data.loader import largest_size
from yolomish.errors import YolomishError
from yolomish.kernels import lean_memory, using_kernels
from yolomish.tasks.detection.loss import detection_loss

RESERVE = 0.1  # of the budget: fragmentation, the data's odd batch with many boxes
AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
BOXES = 16  # an image in the trial


@contextmanager
def forward_settings(config: TrainConfig) -> Iterator[None]:
    """Forward passes inside use the run's kernels and keep what its memory setting says."""
    with using_kernels(config.kernels), lean_memory(config.memory == "lean"):
        yield


def largest_fitting(batch: int, processes: int, budget: int, measure: Callable[[int], int | None]) -> int:
    """The largest divisor of ``batch`` that ``processes`` share evenly and whose peak stays in ``budget`` bytes less 10 %.

    ``measure(n)`` gives the peak bytes of a step with n images in one process, or None where memory ran out. Tries
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


def cuda_step_peak(model: torch.nn.Module, heads: tuple, config: TrainConfig, device: torch.device, images: int) -> int | None:
    """Peak bytes of a forward and backward pass of grey images at the run's largest size, momentum and average counted in.

    None where CUDA ran out of memory. The model's gradients and BN statistics are as before.
    """
    size = largest_size(config)
    rows = [(i, k % config.model.num_classes, 8.0, 8.0, 8.0 + 4 * k, 24.0) for i in range(images) for k in range(1, BOXES + 1)]
    state = {k: v.clone() for k, v in model.state_dict().items() if "running_" in k or "num_batches" in k}
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        x: Tensor = torch.full((images, 3, size, size), 0.5, device=device)
        if config.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        autocast = torch.autocast("cuda", dtype=AMP_TYPES.get(config.amp, torch.bfloat16), enabled=config.amp != "off")
        with autocast, forward_settings(config):
            maps = model(x)
        detection_loss(maps, heads, torch.tensor(rows, device=device), replace(config, mini_batch=0)).total.backward()
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        return torch.cuda.max_memory_allocated(device) + weights * (1 + (config.optimizer == "adamw"))
    except torch.cuda.OutOfMemoryError:
        return None
    finally:
        model.zero_grad(set_to_none=True)
        model.load_state_dict(state, strict=False)
        torch.cuda.empty_cache()
