"""Fast ways to do what torch's own layers do, chosen by device and dtype; no ``nn.Module``, no state of a model.

``norm_act`` is batch norm + activation, ``mish`` and ``mish_`` (in place, for inference) the activation alone. Each looks
up what runs (``choose``), says why (``describe``) and obeys ``using_kernels``; ``lean_memory`` trades time for memory. On a
CPU most are C++ loops, built at their first use and kept on disk; without a compiler torch's layers run. An activation is known
here by the name of its ``CLOSED_FORMS`` entry; all others run as the modules they are.
"""

from yolomish.kernels.choice import KINDS, choose, describe, kernel_kind, using_kernels
from yolomish.kernels.formulas import CLOSED_FORMS, ClosedForm
from yolomish.kernels.lean import derived, lean_memory
from yolomish.kernels.norm_act import chosen, norm_act
from yolomish.kernels.pointwise import mish, mish_

__all__ = [
    "CLOSED_FORMS",
    "KINDS",
    "ClosedForm",
    "choose",
    "chosen",
    "derived",
    "describe",
    "kernel_kind",
    "lean_memory",
    "mish",
    "mish_",
    "norm_act",
    "using_kernels",
]
