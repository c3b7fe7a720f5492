"""Several processes under torchrun: who is who, sums over all, and a group's life. One process: everything is a no-op."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_alone = ContextVar("alone", default=False)


def world_size() -> int:
    """The number of processes; 1 inside ``alone``."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() and not _alone.get() else 1


@contextmanager
def alone() -> Iterator[None]:
    """Computes as if there were no other processes: what one of them may leave by an error, the others must not wait for."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def rank() -> int:
    """This process's number from 0; process 0 writes and logs."""
    return dist.get_rank() if world_size() > 1 else 0


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum over all processes, without gradient; in one process the value itself."""
    if world_size() > 1:
        value = value.detach().clone()
        dist.all_reduce(value)
    return value


def gather(value: Any) -> list[Any]:
    """Every process's ``value``, by rank."""
    if world_size() == 1:
        return [value]
    values = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def share(value: Any) -> Any:
    """Process 0's ``value`` in every process."""
    return gather(value)[0] if world_size() > 1 else value


@contextmanager
def process_group(device: str) -> Iterator[str]:
    """Join torchrun's processes for the duration, by NCCL on CUDA and gloo elsewhere; returns this process's device."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or world_size() > 1:
        yield device
        return
    if device.startswith("cuda"):
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()
