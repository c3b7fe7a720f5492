"""A network is what it answers to: what goes in, what its raw maps mean, and which parts it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from yolomish.config import ModelConfig
from yolomish.errors import YolomishError
from yolomish.nn.blocks import Activated
from yolomish.types import HeadSpec, InputSpec, ResizeMode, SizeHW


class Network(nn.Module):
    """Images as ``input`` says -> one raw map per head of ``heads``, the same in training and evaluation; a classifier has no
    heads and returns its logits (B, K), a tuple of one.

    ``parts`` gives each part (backbone, neck, head; of a classifier stem, stages, head) the names of its submodules, all
    below them included.
    """

    input: InputSpec
    heads: tuple[HeadSpec, ...]
    parts: Mapping[str, tuple[str, ...]]
    config: ModelConfig

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Raw maps (B, A·(5+K), H/stride, W/stride) of logits, or a classifier's logits (B, K)."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """What it is called."""
        return self.config.name

    def part(self, name: str) -> tuple[str, ...]:
        """The submodules of a part; YolomishError where the network has none of that name or it cannot be known."""
        if name not in self.parts:
            raise YolomishError(f"{self.name} does not tell its {name} apart: name {' or '.join(self.parts)}")
        return self.parts[name]

    def slots(self, part: str = "") -> dict[str, Activated]:
        """The blocks whose activation can be swapped, by name, in the order in which they are built; of one part or all."""
        prefixes = self.part(part) if part else ("",)
        return {n: m for n, m in self.named_modules() if isinstance(m, Activated) and not m.fixed and within(n, prefixes)}

    def activations(self, part: str = "") -> tuple[str, ...]:
        """The names of the activations in use, each once."""
        return tuple(dict.fromkeys(block.activation_name for block in self.slots(part).values()))

    def activation_label(self) -> str:
        """The activations of its parts for a legend: ``mish / leaky_relu``; one name where all are alike."""
        names = ("+".join(self.activations(part)) for part in self.parts)
        return " / ".join(dict.fromkeys(name for name in names if name))

    def resized(self, size_hw: SizeHW | None = None, resize: ResizeMode | None = None) -> None:
        """Set the network's own input size and how images get there; YolomishError where a side does not fit its stride."""
        self.input.check_size(size_hw or self.input.size_hw)
        self.input = replace(self.input, size_hw=size_hw or self.input.size_hw, resize=resize or self.input.resize)


def within(name: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a module's or parameter's name is one of ``prefixes`` or lies below one; the empty prefix holds all."""
    return any(not p or name == p or name.startswith(f"{p}.") for p in prefixes)
