"""Mish on a CPU by the loops of ``mish.cpp``, which the machine's own C++ compiler builds once, in half a second.

torch.compile's C++ of the same formula takes 1.5 to 2 times as long per value, and 0.1 ms more per call. A built library is
kept in the cache folder under a name that holds its checksum: one that was cut short or changed is not loaded but built anew.
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

SOURCE = Path(__file__).with_name("mish.cpp")
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
def native_missing() -> str:
    """Why the loops cannot run here, empty where they can; builds them at the first call."""
    if missing := compiler_missing():
        return missing
    try:
        _library()
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        return f"{compiler_command()} cannot build mish.cpp: {first_line(error)}"
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


def _libraries() -> tuple[str, ...]:
    """torch's own OpenMP, under whatever name: with a second one beside it, each waits for the other's idle threads."""
    found = sorted(str(path) for path in (Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    return ("-Wl,--as-needed", *found) if found else ()


@lru_cache
def _library() -> ctypes.CDLL:
    command = (*compiler_command().split(), *_flags(), str(SOURCE), *_libraries())
    facts = (SOURCE.read_text(encoding="utf-8"), *command, torch.__version__, _processor())
    key = _hash("\0".join(facts).encode())
    folder, stem = cache_folder() / "kernels", f"mish-{key}"
    for path in folder.glob(f"{stem}-*.so"):
        with contextlib.suppress(OSError):  # another process has just replaced it, or it cannot be loaded from there
            if path.name == _name(stem, path):
                return _checked(path)
            path.unlink()
    return _build(command, folder, stem)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _name(stem: str, library: Path) -> str:
    return f"{stem}-{_hash(library.read_bytes())}.so"


def _build(command: tuple[str, ...], folder: Path, stem: str) -> ctypes.CDLL:
    """The library, kept in ``folder`` if that can be written; of two builders at once the later one's replaces the other's."""
    with tempfile.TemporaryDirectory() as temporary:
        built = Path(temporary) / f"{stem}.so"
        done = subprocess.run((*command, "-o", str(built)), capture_output=True, timeout=TIMEOUT_S, check=False)
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip()
            raise RuntimeError(next((line for line in said.splitlines() if "error" in line), said or "no reason given"))
        library = _checked(built)
        with contextlib.suppress(OSError, YolomishError):  # else the next process builds it
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(folder / _name(stem, built), lambda path: shutil.copyfile(built, path))
    return library


def _checked(path: Path) -> ctypes.CDLL:
    """The library at ``path`` with its functions' types; RuntimeError unless it has them and they return torch's values."""
    library = ctypes.CDLL(str(path))
    for dtype in DTYPES:
        for name, tensors in ((f"mish_value_{_word(dtype)}", 2), (f"mish_slope_{_word(dtype)}", 3)):
            if not hasattr(library, name):
                raise RuntimeError(f"what it built has no function {name}")
            getattr(library, name).argtypes = [ctypes.c_void_p] * tensors + [ctypes.c_int64, ctypes.c_int]
            getattr(library, name).restype = None
        x = torch.linspace(-20, 20, 101, device="cpu").to(dtype)
        y = torch.empty_like(x)
        getattr(library, f"mish_value_{_word(dtype)}")(x.data_ptr(), y.data_ptr(), x.numel(), 1)
        if not torch.allclose(y, torch.nn.functional.mish(x), atol=1e-5, rtol=torch.finfo(dtype).eps * 8):
            raise RuntimeError(f"what it built returns wrong values in {_word(dtype)}")
    return library


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def value(x: Tensor, out: Tensor | None = None) -> Tensor:
    """mish(x) for a dense ``x`` of ``DTYPES`` on the CPU, in ``out`` (``x`` itself, or one of its layout) or a new tensor."""
    y = torch.empty_like(x) if out is None else out
    getattr(_library(), f"mish_value_{_word(x.dtype)}")(x.data_ptr(), y.data_ptr(), x.numel(), torch.get_num_threads())
    if out is not None:
        torch.autograd.graph.increment_version(out)
    return y


def slope(dy: Tensor, x: Tensor) -> Tensor:
    """dy · mish'(x) for a dense ``x`` and ``dy`` of one layout and dtype."""
    dx = torch.empty_like(x)
    function = getattr(_library(), f"mish_slope_{_word(x.dtype)}")
    function(dy.data_ptr(), x.data_ptr(), dx.data_ptr(), x.numel(), torch.get_num_threads())
    return dx


class Mish(torch.autograd.Function):
    """``value`` with its derivative; the second one is torch's of the formula."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return value(x)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # the caller wants the gradient's gradient
            return formulas.slope(dy, x, "mish")
        return slope(dy if dy.stride() == x.stride() and dy.dtype == x.dtype else torch.empty_like(x).copy_(dy), x)
