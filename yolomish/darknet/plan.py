"""What is built of a cfg so far, and what every section's builder needs: shapes, strides, activations."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from yolomish.activations import darknet_activations
from yolomish.darknet.cfg import Section
from yolomish.errors import unknown_name
from yolomish.nn.blocks import Activated

STRUCTURAL = ("linear", "sigmoid")  # a bottleneck, a gate: they stay what they are when activations are swapped
Shape = tuple[int, int, int]


@dataclass
class Plan:
    """What has been built so far: modules with the shapes (C, H, W) and the sources of their results; -1 is the image."""

    sections: tuple[Section, ...]
    image: Shape
    modules: list[nn.Module] = field(default_factory=list)
    shapes: list[Shape] = field(default_factory=list)
    sources: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def index(self) -> int:
        return len(self.modules)

    def shape(self, source: int) -> Shape:
        return self.image if source < 0 else self.shapes[source]

    def named(self, section: Section, key: str) -> tuple[int, ...]:
        """The sections that an option names, counted from 0 after [net]; negative ones from here back."""
        found = []
        for number in section.integers(key):
            source = self.index + number if number < 0 else number
            if not 0 <= source < self.index:
                raise section.fault(
                    key, f"names section {source}: this is section {self.index}, name one from 0 to {self.index - 1}"
                )
            found.append(source)
        return tuple(found)

    def add(self, module: nn.Module, shape: Shape, sources: tuple[int, ...] | None = None) -> None:
        self.modules.append(module)
        self.shapes.append(shape)
        self.sources.append((self.index - 2,) if sources is None else sources)


def activation_of(section: Section, default: str) -> str:
    """Our name of a section's activation."""
    name, known = section.text("activation", default), darknet_activations()
    if name not in known:
        raise section.fault("activation", f"is not understood: {unknown_name('activation', name, known)}")
    return known[name].name


def is_fixed(block: nn.Module) -> bool:
    return isinstance(block, Activated) and block.activation_name in STRUCTURAL


def strides_yx(section: Section) -> tuple[int, int]:
    """(y, x)."""
    stride = section.integer("stride", 1, 1)
    return section.integer("stride_y", stride, 1), section.integer("stride_x", stride, 1)


def slide(section: Section, shape: Shape, size: int, stride: tuple[int, int], padding: int, channels: int) -> Shape:
    """The shape after a window of ``size`` px with ``padding`` px on both sides together."""
    _, h, w = shape
    if min(h, w) + padding < size:
        raise section.fault("size", f"is larger than the map of {h}x{w} with its padding")
    return channels, (h + padding - size) // stride[0] + 1, (w + padding - size) // stride[1] + 1
