"""What runs ran on: versions, processor, device and the source's commit."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import torch

from yolomish import __version__
from yolomish.ops.device import choose_device


def processor() -> str:
    """The CPU's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except (OSError, UnicodeDecodeError):
        pass  # not Linux: platform's word stays
    return platform.processor() or platform.machine()


def environment(device: str = "auto") -> dict[str, str]:
    """What the runs ran on: versions, processor, device, the source's commit; all as text."""
    chosen = choose_device(device)
    where = str(chosen)
    if chosen.type == "cuda":
        where = f"{torch.cuda.get_device_name(chosen)} (CUDA {torch.version.cuda})"
    return {
        "yolomish": __version__ + _commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "CPU": f"{processor()} ({os.cpu_count()} cores, {torch.get_num_threads()} threads)",
        "device": where,
    }


def _commit() -> str:
    """`` (commit abc1234)`` in a checkout, with ``changed`` where files differ from it; nothing in an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        head, changes = (
            subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f" (commit {head}{', changed' if changes else ''})"
