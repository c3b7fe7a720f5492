"""The steps of ``formulas`` on a CPU by the loops of ``norm_act.cpp``, which the machine's own C++ compiler builds once.

A library holds one activation and takes a second or two to build. It is kept in the cache folder under a name that holds its
checksum: one that was cut short or changed is not loaded but built anew. Maps are dense, of ``DTYPES``, as (outer, C, inner) or
as (B, C, H, W) in either layout.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolomish.errors import YolomishError, first_line
from yolomish.files import cache_folder, replace_file
from yolomish.kernels import formulas

SOURCE = Path(__file__).with_name("norm_act.cpp")
STRUCTS = {"mish": "Mish", "leaky_relu": "LeakyRelu", "relu": "Relu", "silu": "Silu", "linear": "Linear"}  # in the source
# What each function takes: so many tensors, floats and sizes, and the number of threads
FUNCTIONS = {
    "statistics": (6, 2, 3),
    "apply": (6, 0, 3),
    "reduce": (7, 0, 3),
    "input_gradient": (8, 0, 3),
    "backward": (9, 0, 4),
    "value": (2, 0, 1),
    "slope": (3, 0, 1),
}
DTYPES = (torch.float32, torch.bfloat16)
FLAGS = ("-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")
TIMEOUT_S = 60


def compiler_command() -> str:
    """$CXX, else the platform's usual C++ compiler."""
    return os.environ.get("CXX", "").strip() or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")


@lru_cache
def compiler_missing() -> str:
    """Why there is no C++ compiler, empty where there seems to be one."""
    name = compiler_command()
    return "" if shutil.which(name.split()[0]) else f"no C++ compiler: {name} is not on PATH"


@lru_cache
def native_missing(act: str = "mish") -> str:
    """Why the loops for ``act`` cannot run here, empty where they can; builds them at the first call."""
    if act not in STRUCTS:
        return f"no C++ for {act}"
    if missing := compiler_missing():
        return missing
    try:
        _library(act)
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        return f"{compiler_command()} cannot build {SOURCE.name}: {first_line(error)}"
    return ""


def _flags() -> tuple[str, ...]:
    if platform.machine().lower() in ("x86_64", "amd64"):
        return (*FLAGS, "-march=native", "-mprefer-vector-width=512")
    return (*FLAGS, "-mcpu=native")


def _processor() -> str:
    """What machine code for this CPU depends on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    facts = {line for line in lines if line.startswith(("flags", "Features", "model name"))}
    return "".join(sorted(facts)) or platform.platform()


def gnu_openmp() -> tuple[str, ...]:
    """torch's own OpenMP where it is GNU's, under whatever name."""
    return tuple(sorted(str(path) for path in (Path(torch.__file__).parent / "lib").glob("libgomp*.so*")))


def _libraries() -> tuple[str, ...]:
    """torch's own OpenMP: with a second one beside it, each waits for the other's idle threads."""
    found = gnu_openmp()
    return ("-Wl,--as-needed", *found) if found else ()


@lru_cache
def _library(act: str = "mish") -> ctypes.CDLL:
    command = (*compiler_command().split(), *_flags(), f"-DACT={STRUCTS[act]}", str(SOURCE), *_libraries())
    facts = (SOURCE.read_text(encoding="utf-8"), *command, torch.__version__, _processor())
    key = _hash("\0".join(facts).encode())
    folder, stem = cache_folder() / "kernels", f"{act}-{key}"
    for path in folder.glob(f"{stem}-*.so"):
        with contextlib.suppress(OSError):  # another process has just replaced it, or it cannot be loaded from there
            if path.name == _name(stem, path):
                return _checked(path, act)
            path.unlink()
    return _build(command, folder, stem, act)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _name(stem: str, library: Path) -> str:
    return f"{stem}-{_hash(library.read_bytes())}.so"


def _build(command: tuple[str, ...], folder: Path, stem: str, act: str) -> ctypes.CDLL:
    """The library, kept in ``folder`` if that can be written; of two builders at once the later one's replaces the other's."""
    with tempfile.TemporaryDirectory() as temporary:
        built = Path(temporary) / f"{stem}.so"
        done = subprocess.run((*command, "-o", str(built)), capture_output=True, timeout=TIMEOUT_S, check=False)
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip()
            raise RuntimeError(next((line for line in said.splitlines() if "error" in line), said or "no reason given"))
        library = _checked(built, act)
        with contextlib.suppress(OSError, YolomishError):  # else the next process builds it
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(folder / _name(stem, built), lambda path: shutil.copyfile(built, path))
    return library


def _checked(path: Path, act: str) -> ctypes.CDLL:
    """The library at ``path`` with its functions' types; RuntimeError unless it has them and they return the formulas' values."""
    library = ctypes.CDLL(str(path))
    for word in map(_word, DTYPES):
        for name, (tensors, floats, sizes) in FUNCTIONS.items():
            if not hasattr(library, f"{name}_{word}"):
                raise RuntimeError(f"what it built has no function {name}_{word}")
            function = getattr(library, f"{name}_{word}")
            pointers, numbers = [ctypes.c_void_p] * tensors, [ctypes.c_float] * floats
            function.argtypes = [*pointers, *numbers, *[ctypes.c_int64] * sizes, ctypes.c_int]
            function.restype = None
    for dtype in DTYPES:
        x = torch.linspace(-20, 20, 101, device="cpu").to(dtype)
        y, dx, ones = torch.empty_like(x), torch.empty_like(x), torch.ones_like(x)
        getattr(library, f"value_{_word(dtype)}")(x.data_ptr(), y.data_ptr(), x.numel(), 1)
        getattr(library, f"slope_{_word(dtype)}")(ones.data_ptr(), x.data_ptr(), dx.data_ptr(), x.numel(), 1)
        for ours, truth in ((y, formulas.value(x, act)), (dx, formulas.slope(ones, x, act))):
            if not torch.allclose(ours, truth, atol=1e-5, rtol=torch.finfo(dtype).eps * 8):
                raise RuntimeError(f"what it built returns wrong values in {_word(dtype)}")
    return library


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _call(name: str, act: str, dtype: torch.dtype, tensors: tuple[Tensor | None, ...], *numbers: float) -> None:
    """Run ``name`` of ``act``'s library for maps of ``dtype``."""
    pointers = (None if t is None else t.data_ptr() for t in tensors)
    getattr(_library(act), f"{name}_{_word(dtype)}")(*pointers, *numbers, torch.get_num_threads())


def is_rows(x: Tensor) -> bool:
    """Whether a dense (B, C, H, W) lies in memory pixel by pixel."""
    return x.shape[1] > 1 and x.is_contiguous(memory_format=torch.channels_last)


def _sizes(x: Tensor) -> tuple[int, ...]:
    """The three sizes of a dense (outer, C, inner) or (B, C, H, W)."""
    if x.dim() == 3:
        return tuple(x.shape)
    b, c, h, w = x.shape
    return (b * h * w, c, 1) if is_rows(x) else (b, c, h * w)


def _floats(*channels: Tensor) -> tuple[Tensor, ...]:
    return tuple(c if c.dtype == torch.float32 and c.is_contiguous() else c.float().contiguous() for c in channels)


def statistics(x: Tensor, act: str) -> tuple[Tensor, Tensor]:
    """``formulas.statistics`` in one pass, from ``act``'s library."""
    mean, variance, invstd = torch.empty(3, x.shape[1]).unbind()
    _call("statistics", act, x.dtype, (x, mean, variance, invstd, None, None), 0.0, 0.0, *_sizes(x))
    return mean, variance


def running_statistics(
    x: Tensor, running_mean: Tensor, running_var: Tensor, momentum: float, epsilon: float, act: str
) -> tuple[Tensor, Tensor]:
    """Mean and invstd (C,) of ``x``; moves the running averages."""
    mean, variance, invstd = torch.empty(3, x.shape[1]).unbind()
    running = running_mean, running_var
    wide = _floats(*running)
    _call("statistics", act, x.dtype, (x, mean, variance, invstd, *wide), momentum, epsilon, *_sizes(x))
    for stored, moved in zip(running, wide, strict=True):
        if moved is stored:
            torch.autograd.graph.increment_version(stored)
        else:
            stored.copy_(moved)
    return mean, invstd


def apply(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, invstd: Tensor, act: str) -> Tensor:
    """``formulas.apply`` in one pass."""
    y = torch.empty_like(x)
    _call("apply", act, x.dtype, (x, y, *_floats(weight, bias, mean, invstd)), *_sizes(x))
    return y


def reduce(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, invstd: Tensor, act: str) -> Tensor:
    """``formulas.reduce`` in one pass."""
    sums = torch.empty(2, x.shape[1])
    _call("reduce", act, x.dtype, (dy, x, *_floats(weight, bias, mean, invstd), sums), *_sizes(x))
    return sums


def input_gradient(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, invstd: Tensor, shares: Tensor, act: str
) -> Tensor:
    """``formulas.input_gradient`` in one pass."""
    dx = torch.empty_like(x)
    _call("input_gradient", act, x.dtype, (dy, x, dx, *_floats(weight, bias, mean, invstd, shares)), *_sizes(x))
    return dx


def backward(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, invstd: Tensor, act: str, training: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``x``, ``weight`` and ``bias``: ``reduce`` and ``input_gradient`` at once."""
    dx = torch.empty_like(x)
    dweight, dbias = torch.empty(x.shape[1]), torch.empty(x.shape[1])
    tensors = (dy, x, dx, *_floats(weight, bias, mean, invstd), dweight, dbias)
    _call("backward", act, x.dtype, tensors, *_sizes(x), int(training))
    return dx, dweight.to(weight.dtype), dbias.to(bias.dtype)


def value(x: Tensor, act: str, out: Tensor | None = None) -> Tensor:
    """act(x) for a dense ``x`` of ``DTYPES`` on the CPU, in ``out`` (``x`` itself, or one of its layout) or a new tensor."""
    y = torch.empty_like(x) if out is None else out
    _call("value", act, x.dtype, (x, y), x.numel())
    return y


def slope(dy: Tensor, x: Tensor, act: str) -> Tensor:
    """dy · act'(x) for a dense ``x`` and ``dy`` of one layout and dtype."""
    dx = torch.empty_like(x)
    _call("slope", act, x.dtype, (dy, x, dx), x.numel())
    return dx


class Mish(torch.autograd.Function):
    """``value`` of Mish with its derivative; the second one is torch's of the formula."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return value(x, "mish")

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # the caller wants the gradient's gradient
            return formulas.slope(dy, x, "mish")
        return slope(dy if dy.stride() == x.stride() and dy.dtype == x.dtype else torch.empty_like(x).copy_(dy), x, "mish")
