"""Batch norm over all processes' images: torch's own on CUDA; on a CPU, which that refuses, the same in a few lines."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


class CpuSyncBatchNorm(nn.BatchNorm2d):
    """``BatchNorm2d`` whose training statistics come from every process; evaluation and state are as ever."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        axes = (0, 2, 3)
        count = x.new_full((1,), x.numel() / x.shape[1])
        total, count = all_reduce(torch.cat((x.sum(axes), count))).split((x.shape[1], 1))
        mean = total / count
        centred = x - mean.view(1, -1, 1, 1)
        variance = all_reduce(centred.square().sum(axes)) / count
        with torch.no_grad():
            momentum = self.momentum if self.momentum is not None else 0.0
            self.running_mean.lerp_(mean, momentum)  # type: ignore[union-attr]
            self.running_var.lerp_(variance * count / (count - 1), momentum)  # type: ignore[union-attr]
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        scale = (variance + self.eps).rsqrt() * self.weight
        return centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


def synchronise_norms(model: nn.Module, device: torch.device) -> nn.Module:
    """``model`` with every batch norm counting all processes' images; parameters and buffers stay the same tensors."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.BatchNorm2d:
                norm = CpuSyncBatchNorm(child.num_features, child.eps, child.momentum)
                norm.weight, norm.bias = child.weight, child.bias
                norm.running_mean, norm.running_var = child.running_mean, child.running_var
                norm.num_batches_tracked = child.num_batches_tracked
                setattr(parent, name, norm)
    return model
