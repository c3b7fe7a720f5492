"""Which implementation runs, and why: looked up once per device, dtype and activation; a context manager overrides it.

``auto``: Triton on CUDA for maps of ``LARGE`` values and more; on a CPU C++ loops (``native``) for the activations that have
them; torch's layers elsewhere. ``eager``: torch's own layers. ``fused``: as ``auto``, but Triton for maps of any size, and what
has no loop on a CPU goes through torch.compile. ``compile``: torch.compile everywhere.

The kind in force is a context variable: each thread has its own and starts with ``auto``. Work handed to a pool takes the
caller's along through ``contextvars.copy_context().run``. Backward passes need none, for a forward pass saves what it ran;
what runs forward again inside one (``torch.utils.checkpoint``) does so in a thread of the GPU's and needs torch's ``context_fn``.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache

import torch

from yolomish.errors import unknown_name
from yolomish.kernels import native
from yolomish.kernels.formulas import CLOSED_FORMS

KINDS = ("auto", "eager", "fused", "compile")
LARGE = 1 << 25  # below, Triton's launches take longer than torch's kernels: benchmarks/results/kernels-gpu.md

_kind: ContextVar[str] = ContextVar("kernel_kind", default="auto")
# Whether torch.compile can read a context variable; it then recompiles for another kind. Older ones keep the first kind
_GUARDED = torch.__version__ >= "2.14"
_broken: dict[str, str] = {}  # device type -> why its compiler failed


@dataclass(frozen=True)
class Choice:
    """``implementation``: eager (torch's own layers), native, triton or compiled; ``reason`` in a few words."""

    implementation: str
    reason: str


def kernel_kind() -> str:
    """The kind in force in this thread: one of ``KINDS``."""
    return _kind.get()


@contextmanager
def using_kernels(kind: str) -> Iterator[None]:
    """``kind`` of kernels for this thread, meanwhile; auto leaves what an outer call chose. YolomishError on another word."""
    if kind not in KINDS:
        raise unknown_name("kernels", kind, KINDS)
    token = _kind.set(_kind.get() if kind == "auto" else kind)
    try:
        yield
    finally:
        _kind.reset(token)


@lru_cache
def triton_missing() -> str:
    """Why Triton cannot be used, empty where it can."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    try:
        from yolomish.kernels import triton_code  # noqa: F401
    except (ImportError, AttributeError) as error:  # a version without what we use
        return f"Triton cannot be imported: {error}"
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < (7, 0):
        return f"{torch.cuda.get_device_name()} is older than Triton supports"
    return ""


def compiler_failed(device: str, reason: str) -> None:
    """From now on ``device`` (a type, such as cpu) runs torch's own layers."""
    _broken[device] = reason
    choose.cache_clear()


def exporting() -> bool:
    """Whether the network is being traced for another program, which knows torch's own layers only."""
    return torch.jit.is_tracing() or getattr(torch.compiler, "is_exporting", bool)()  # the latter from torch 2.7 on


def interpreting() -> bool:
    """Whether Triton's interpreter is asked for: kernels then run on the CPU, slowly, to be tested."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@lru_cache
def choose(kind: str, device: str, dtype: torch.dtype, act: str) -> Choice:
    """The implementation for a kind, a device type, the values' dtype and an activation."""
    if kind == "eager":
        return Choice("eager", "asked for")
    if act not in CLOSED_FORMS:
        return Choice("eager", f"{act} has no closed form here")
    if dtype == torch.float64:
        return Choice("eager", "float64")
    if device == "cpu" and (kind == "auto" or (kind == "fused" and not interpreting())):
        missing = native.native_missing(act) if dtype in native.DTYPES else f"no C++ for {dtype}"
        if kind == "auto" or not missing:
            return Choice("eager", missing) if missing else Choice("native", f"built by {native.compiler_command()}")
    if kind != "compile" and (device == "cuda" or (kind == "fused" and device == "cpu" and interpreting())):
        missing = triton_missing()
        return Choice("eager", missing) if missing else Choice("triton", "Triton" if device == "cuda" else "Triton's interpreter")
    if device not in ("cuda", "cpu"):
        return Choice("eager", f"no kernels for {device}")
    missing = _broken.get(device) or (triton_missing() if device == "cuda" else native.compiler_missing())
    if missing:
        return Choice("eager", missing)
    return Choice("compiled", "torch.compile" if device == "cuda" else "torch.compile's C++")


def choose_while_compiling(kind: str, device: str, dtype: torch.dtype, act: str) -> str:
    """``choose``'s implementation as a constant for torch.compile's tracing; an empty kind is the one in force."""
    return choose(kind or _kind.get(), device, dtype, act).implementation


# What torch.compiler.assume_constant_result does, without its import of torch._dynamo, which takes seconds
choose_while_compiling._dynamo_marked_constant = True  # type: ignore[attr-defined]


def choose_for(x: torch.Tensor, act: str, *, any_size: bool = False) -> str:
    """``choose``'s implementation for ``x`` by the kind in force, in and out of torch.compile's tracing; ``any_size``: also where
    Triton is slower than torch's layers."""
    if torch.compiler.is_compiling():
        return choose_while_compiling(_kind.get() if _GUARDED else "", x.device.type, x.dtype, act)
    kind = _kind.get()
    implementation = choose(kind, x.device.type, x.dtype, act).implementation
    slower = implementation == "triton" and kind == "auto" and x.numel() < LARGE
    return "eager" if slower and not any_size else implementation


def describe(device: torch.device | str, dtype: torch.dtype, acts: list[str]) -> str:
    """One line: what runs BN + each activation on ``device`` for values of ``dtype``, and why."""
    device = torch.device(device)
    names: dict[Choice, list[str]] = {}
    for act in dict.fromkeys(acts):
        names.setdefault(choose(_kind.get(), device.type, dtype, act), []).append(act)
    parts = []
    for choice, same in names.items():
        how = {
            "eager": "torch's own layers",
            "native": "one fused C++ loop per pass",
            "triton": f"one fused kernel per pass{f' on maps of {LARGE} values and more' if kernel_kind() == 'auto' else ''}",
            "compiled": "compiled kernels",
        }[choice.implementation]
        parts.append(f"{', '.join(same)} by {how} ({choice.reason})")
    return f"kernels {_kind.get()} on {device}, {str(dtype).removeprefix('torch.')}: {'; '.join(parts)}"
