"""In which order Darknet stores a network's weights: a cfg's order is its own, each Python architecture has its line here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from torch import Tensor, nn

from yolomish.networks import Network
from yolomish.nn.blocks import ConvBlock
from yolomish.nn.sections import Connected, Shortcut

# The order of submodules where it is not that of their registration. cfg/yolov4.cfg, yolov4-pacsp.cfg and yolov4-csp.cfg: the
# P3 head stands before the bottom-up path and the P4 head before the last step down
_PACSP = (
    *("backbone", "neck.spp", "neck.top_down", "head_layers.0"),
    *("neck.bottom_up.0", "head_layers.1", "neck.bottom_up.1", "head_layers.2"),
)
ORDERS: dict[str, tuple[str, ...]] = {
    "yolov4": (
        "backbone",
        *(f"neck.{n}" for n in ("before_spp", "after_spp", "up5", "lateral4", "top_down4", "up4", "lateral3", "top_down3")),
        "head_layers.0",
        *("neck.down3", "neck.bottom_up4", "head_layers.1"),
        *("neck.down4", "neck.bottom_up5", "head_layers.2"),
    ),
    **dict.fromkeys(("pacsp-s", "pacsp", "pacsp-x"), _PACSP),
    "yolov4-tiny": ("backbone", "reduce", "head_layers.0", "ups.0", "head_layers.1"),
    "yolov4-tiny-3l": ("backbone", "reduce", "head_layers.0", "ups.0", "head_layers.1", "ups.1", "head_layers.2"),
}


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What one section stores: a convolution, connected weights, a batch norm alone or a shortcut's weights, with its norm."""

    name: str
    module: nn.Conv2d | nn.Linear | nn.modules.batchnorm._BatchNorm | Shortcut
    norm: nn.modules.batchnorm._BatchNorm | None = None

    def tensors(self) -> list[Tensor]:
        """In the file's order: src/parser.c load_convolutional_weights, load_connected_weights and the like."""
        if isinstance(self.module, Shortcut):
            assert self.module.weights is not None
            return [self.module.weights]
        norm = self.module if isinstance(self.module, nn.modules.batchnorm._BatchNorm) else self.norm
        kernel = [] if norm is self.module else [self.module.weight]
        if norm is None:
            assert self.module.bias is not None
            return [self.module.bias, *kernel]
        assert norm.running_mean is not None and norm.running_var is not None
        rest = [norm.weight, norm.running_mean, norm.running_var]
        return [norm.bias, *kernel, *rest] if isinstance(self.module, nn.Linear) else [norm.bias, *rest, *kernel]

    def __str__(self) -> str:
        module = self.module
        if isinstance(module, nn.Conv2d):
            k = module.kernel_size[0]
            return f"convolution {self.name}, {k}x{k}, {module.in_channels} -> {module.out_channels} filters"
        return f"{type(module).__name__} {self.name}"


def file_order(network: Network) -> Iterator[Stored]:
    """Everything that a ``.weights`` file of the network holds, in its order; shared weights once."""
    seen: set[int] = set()
    for prefix in ORDERS.get(network.config.architecture, ("",)):
        part = network.get_submodule(prefix)
        norms: dict[int, nn.modules.batchnorm._BatchNorm | None] = {}
        for module in part.modules():
            if isinstance(module, ConvBlock | Connected):
                norms[id(module.conv if isinstance(module, ConvBlock) else module.linear)] = module.bn
        within_blocks = {id(norm) for norm in norms.values()}
        for name, module in part.named_modules(prefix=prefix):
            if isinstance(module, nn.Conv2d | nn.Linear):
                weights: Tensor = module.weight
            elif isinstance(module, nn.modules.batchnorm._BatchNorm) and id(module) not in within_blocks:
                weights = module.weight
            elif isinstance(module, Shortcut) and module.weights is not None:
                weights = module.weights
            else:
                continue
            if id(weights) not in seen:
                seen.add(id(weights))
                yield Stored(name=name, module=module, norm=norms.get(id(module)))


def size(network: Network) -> int:
    """How many floats a whole file holds."""
    return sum(tensor.numel() for stored in file_order(network) for tensor in stored.tensors())


def stored_names(network: Network, count: int) -> list[str]:
    """The names in ``state_dict`` of what the first ``count`` sections of a file hold, with their norms' counters."""
    wanted: set[int] = set()
    for stored in islice(file_order(network), count):
        for module in (stored.module, stored.norm):
            wanted |= {id(t) for t in module.state_dict(keep_vars=True).values()} if module is not None else set()
    return [name for name, tensor in network.state_dict(keep_vars=True).items() if id(tensor) in wanted]
