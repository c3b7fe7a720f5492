"""The activations of detectors and classifiers, and those that the Mish paper compares. None writes into its input."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from yolomish.activations.record import Activation, OneDnnForm, OnnxForm
from yolomish.activations.trainable import AconC, PRelu, StarRelu, SwishBeta
from yolomish.kernels import CLOSED_FORMS, mish, mish_
from yolomish.kernels.formulas import LEAKY_SLOPE, TANHEXP_CAP, value


def tanhexp_(x: Tensor) -> Tensor:
    """``tanhexp`` written into ``x``."""
    return x.mul_(x.clamp(max=TANHEXP_CAP).exp_().tanh_())


def logish_(x: Tensor) -> Tensor:
    """``logish`` written into ``x``."""
    return x.mul_(x.sigmoid().log1p_())


def smish_(x: Tensor) -> Tensor:
    """``smish`` written into ``x``."""
    return x.mul_(x.sigmoid().log1p_().tanh_())


STANDARD = (
    Activation(
        name="mish",
        definition=mish,
        description="x·tanh(softplus(x)), smooth, minimum -0.30884 at -1.1924",
        source="arXiv:1908.08681",
        in_place=mish_,
        onnx=OnnxForm(operator="Mish", opset=18),
        darknet="mish",
    ),  # oneDNN has Mish too, but torch does not let it through
    Activation(
        name="leaky_relu",
        definition=partial(F.leaky_relu, negative_slope=LEAKY_SLOPE),
        description="x where positive, else 0.1·x",
        source="Darknet src/activations.h leaky_activate",
        in_place=partial(F.leaky_relu, negative_slope=LEAKY_SLOPE, inplace=True),
        onednn=OneDnnForm(name="leaky_relu", scalars=(LEAKY_SLOPE,)),
        onnx=OnnxForm(operator="LeakyRelu", attributes={"alpha": LEAKY_SLOPE}),
        darknet="leaky",
    ),
    Activation(
        name="relu",
        definition=F.relu,
        description="max(x, 0)",
        source="Darknet src/activations.h relu_activate",
        in_place=partial(F.relu, inplace=True),
        onednn=OneDnnForm(name="relu"),
        onnx=OnnxForm(operator="Relu"),
        darknet="relu",
    ),
    Activation(
        name="relu6",
        definition=F.relu6,
        description="min(max(x, 0), 6)",
        source="arXiv:1704.04861; Darknet src/activations.h relu6_activate",
        in_place=partial(F.relu6, inplace=True),
        onednn=OneDnnForm(name="hardtanh", scalars=(0.0, 6.0)),
        onnx=OnnxForm(operator="Clip", constants=(0.0, 6.0)),
        darknet="relu6",
    ),
    Activation(
        name="silu",
        aliases=("swish",),
        definition=F.silu,
        description="x·sigmoid(x), also called Swish",
        source="arXiv:1710.05941; Darknet src/activations.c activate_array_swish",
        in_place=partial(F.silu, inplace=True),
        onednn=OneDnnForm(name="swish"),
        onnx=OnnxForm(operator="Sigmoid", times_input=True),
        darknet="swish",
    ),
    Activation(
        name="sigmoid",
        definition=torch.sigmoid,
        description="1/(1 + e^-x), Darknet's logistic",
        source="Darknet src/activations.h logistic_activate",
        in_place=torch.sigmoid_,
        onednn=OneDnnForm(name="sigmoid"),
        onnx=OnnxForm(operator="Sigmoid"),
        darknet="logistic",
    ),
    Activation(
        name="hard_mish",
        definition=CLOSED_FORMS["hard_mish"].value,
        description="x·min(2, max(0, x + 2))/2: x²/2 + x between -2 and 0",
        source="Darknet src/activations.c hard_mish_yashas",
        onnx=OnnxForm(operator="HardSigmoid", attributes={"alpha": 0.5, "beta": 1.0}, times_input=True),
        darknet="hard_mish",
    ),
    Activation(
        name="hardswish",
        definition=F.hardswish,
        description="x·min(6, max(0, x + 3))/6",
        source="arXiv:1905.02244",
        in_place=partial(F.hardswish, inplace=True),
        onednn=OneDnnForm(name="hardswish"),
        onnx=OnnxForm(operator="HardSwish", opset=14),
    ),
    Activation(
        name="gelu",
        definition=F.gelu,
        description="x·Φ(x) with the exact normal distribution function",
        source="arXiv:1606.08415",
        onednn=OneDnnForm(name="gelu", algorithm="none"),
        onnx=OnnxForm(operator="Gelu", opset=20),
    ),
    Activation(
        name="gelu_tanh",
        definition=partial(F.gelu, approximate="tanh"),
        description="x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))/2, Darknet's gelu",
        source="arXiv:1606.08415; Darknet src/activations.h gelu_activate, whose rounded constants differ by 2.2e-7 at most",
        onednn=OneDnnForm(name="gelu", algorithm="tanh"),
        onnx=OnnxForm(operator="Gelu", attributes={"approximate": "tanh"}, opset=20),
        darknet="gelu",
    ),
    Activation(
        name="elu",
        definition=F.elu,
        description="x where positive, else e^x - 1",
        source="arXiv:1511.07289; Darknet src/activations.h elu_activate",
        in_place=partial(F.elu, inplace=True),
        onnx=OnnxForm(operator="Elu"),
        darknet="elu",
    ),
    Activation(
        name="selu",
        definition=F.selu,
        description="Scaled ELU, self-normalising",
        source="arXiv:1706.02515; Darknet src/activations.h selu_activate, whose rounded constants differ by 7e-5 at most",
        in_place=partial(F.selu, inplace=True),
        onnx=OnnxForm(operator="Selu"),
        darknet="selu",
    ),
    Activation(
        name="softplus",
        definition=F.softplus,
        description="ln(1 + e^x)",
        onnx=OnnxForm(operator="Softplus"),
    ),
    Activation(
        name="squareplus",
        definition=partial(value, act="squareplus"),
        description="(x + √(x² + 4))/2: softplus without exponentials, of its curvature at 0",
        source="arXiv:2112.11687",
    ),
    Activation(
        name="tanhexp",
        definition=partial(value, act="tanhexp"),
        description="x·tanh(e^x), minimum -0.35329 at -1.0789",
        source="arXiv:2003.09855",
        in_place=tanhexp_,
    ),
    Activation(
        name="logish",
        definition=partial(value, act="logish"),
        description="x·ln(1 + sigmoid(x))",
        source="doi:10.1016/j.neucom.2021.06.067",
        in_place=logish_,
    ),
    Activation(
        name="smish",
        definition=partial(value, act="smish"),
        description="x·tanh(ln(1 + sigmoid(x)))",
        source="doi:10.3390/electronics11040540",
        in_place=smish_,
    ),
    Activation(
        name="tanh",
        definition=torch.tanh,
        description="The hyperbolic tangent",
        source="Darknet src/activations.h tanh_activate",
        in_place=torch.tanh_,
        onednn=OneDnnForm(name="tanh"),
        onnx=OnnxForm(operator="Tanh"),
        darknet="tanh",
    ),
    Activation(
        name="prelu",
        definition=PRelu,
        per_channel=True,
        description="x where positive, else the channel's learned slope times x, from 0.25 on",
        source="arXiv:1502.01852",
        onnx=OnnxForm(operator="PRelu"),
    ),
    Activation(
        name="swish_beta",
        definition=SwishBeta,
        per_channel=True,
        description="x·sigmoid(β·x), the channel's β learned from 1 on",
        source="arXiv:1710.05941",
    ),
    Activation(
        name="acon",
        aliases=("acon_c",),
        definition=AconC,
        per_channel=True,
        description="(p1 - p2)·x·sigmoid(β·(p1 - p2)·x) + p2·x, the channel's p1, p2 and β learned from 1, 0 and 1 on: ACON-C",
        source="arXiv:2009.04759",
    ),
    Activation(
        name="star_relu",
        definition=StarRelu,
        description="s·max(x, 0)² + b, s and b learned from 0.8944 and -0.4472 on",
        source="arXiv:2210.13452",
    ),
    Activation(
        name="linear",
        definition=CLOSED_FORMS["linear"].value,
        description="x itself: no activation",
        source="Darknet src/activations.h linear_activate",
        onednn=OneDnnForm(name="none"),
        onnx=OnnxForm(operator="Identity"),
        darknet="linear",
    ),
)
