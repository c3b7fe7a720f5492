"""What is known of an activation, once: its module, its faster forms and its names in other formats."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from yolomish.kernels import CLOSED_FORMS, ClosedForm


class FunctionActivation(nn.Module):
    """A function Tensor -> Tensor of equal shape as a module without parameters."""

    def __init__(self, function: Callable[[Tensor], Tensor], name: str) -> None:
        super().__init__()
        self.function = function
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return self.name


@dataclass(frozen=True, kw_only=True)
class OneDnnForm:
    """The activation as oneDNN computes it behind a convolution (ATen/native/mkldnn/Utils.cpp names them)."""

    name: str
    scalars: tuple[float, ...] = ()
    algorithm: str = ""


@dataclass(frozen=True, kw_only=True)
class OnnxForm:
    """The activation as an ONNX operator of the input, the ``constants`` and the module's parameters, each (C, 1, 1).

    Where ``times_input`` the activation is the input times the operator's result. ``opset`` is the first that has it.
    """

    operator: str
    attributes: Mapping[str, float | str] = field(default_factory=dict)
    constants: tuple[float, ...] = ()
    times_input: bool = False
    opset: int = 13


@dataclass(frozen=True, kw_only=True, eq=False)
class Activation:
    """One activation. What is None or empty does not exist: the module then runs, or is traced, as it is.

    Args:
        name: What it is called in configurations and tables.
        aliases: Other names for it.
        definition: A function Tensor -> Tensor of equal shape, or a module class built without arguments.
        per_channel: The class takes a number of channels too, for each of which it then has parameters.
        description: One line: the formula.
        source: Paper, Darknet file and function.
        in_place: A function that may overwrite its input, for inference.
        onednn: Its form behind oneDNN's convolutions.
        onnx: Its ONNX operator.
        darknet: Its name in a Darknet cfg (src/activations.c get_activation).
    """

    name: str
    definition: Callable[..., object]
    description: str
    source: str = ""
    aliases: tuple[str, ...] = ()
    per_channel: bool = False
    in_place: Callable[[Tensor], Tensor] | None = None
    onednn: OneDnnForm | None = None
    onnx: OnnxForm | None = None
    darknet: str = ""

    @property
    def closed_form(self) -> ClosedForm | None:
        """Value and derivative as formulas, from which the fused kernels are made; each has a Triton branch too."""
        return CLOSED_FORMS.get(self.name)

    def build(self, channels: int = 1) -> nn.Module:
        """A new module: any shape in, the same shape and dtype out; for maps of so many channels, 1 for any."""
        if inspect.isclass(self.definition) and issubclass(self.definition, nn.Module):
            return self.definition(channels) if self.per_channel else self.definition()
        return FunctionActivation(self.definition, self.name)  # type: ignore[arg-type]
