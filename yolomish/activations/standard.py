"""The activations that the Mish paper compares (arXiv:1908.08681). None writes into its input."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from yolomish import kernels
from yolomish.activations.registry import register_activation
from yolomish.kernels.formulas import LEAKY_SLOPE


@register_activation("mish")
def mish(x: Tensor) -> Tensor:
    """x·tanh(softplus(x)), smooth, minimum -0.30884 at -1.1924 (arXiv:1908.08681)."""
    return kernels.mish(x)


@register_activation("leaky_relu")
def leaky_relu(x: Tensor) -> Tensor:
    """x where positive, else 0.1·x (Darknet's slope)."""
    return F.leaky_relu(x, LEAKY_SLOPE)


@register_activation("relu")
def relu(x: Tensor) -> Tensor:
    """max(x, 0)."""
    return F.relu(x)


@register_activation("silu", "swish")
def silu(x: Tensor) -> Tensor:
    """x·sigmoid(x), also called Swish (arXiv:1710.05941)."""
    return F.silu(x)


@register_activation("hard_mish")
def hard_mish(x: Tensor) -> Tensor:
    """x·min(2, max(0, x + 2))/2: x²/2 + x between -2 and 0 (Darknet src/activations.h hard_mish_yashas)."""
    return x * (x + 2).clamp(0, 2) / 2


@register_activation("hardswish")
def hardswish(x: Tensor) -> Tensor:
    """x·min(6, max(0, x + 3))/6 (arXiv:1905.02244)."""
    return F.hardswish(x)


@register_activation("gelu")
def gelu(x: Tensor) -> Tensor:
    """x·Φ(x) with the exact normal distribution function (arXiv:1606.08415)."""
    return F.gelu(x)


@register_activation("elu")
def elu(x: Tensor) -> Tensor:
    """x where positive, else e^x - 1 (arXiv:1511.07289)."""
    return F.elu(x)


@register_activation("selu")
def selu(x: Tensor) -> Tensor:
    """Scaled ELU, self-normalising (arXiv:1706.02515)."""
    return F.selu(x)


@register_activation("softplus")
def softplus(x: Tensor) -> Tensor:
    """ln(1 + e^x)."""
    return F.softplus(x)


@register_activation("tanh")
def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return x.tanh()


@register_activation("prelu")
class PReLU(nn.PReLU):
    """x where positive, else a learned slope times x, from 0.25 on (arXiv:1502.01852)."""


@register_activation("linear")
def linear(x: Tensor) -> Tensor:
    """x itself: no activation."""
    return x
