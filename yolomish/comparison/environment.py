"""What runs ran on, and the proof that arms start equal."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from pathlib import Path

import torch

from yolomish import __version__
from yolomish.config import TrainConfig
from yolomish.errors import YolomishError
from yolomish.networks import build_network
from yolomish.ops.device import choose_device


def initial_kernels(config: TrainConfig, weights: str = "") -> str:
    """SHA-256 of what ``fit`` starts from: torch seeded, then ``build_network``; then the bytes of a weights file, if any.

    Parameters inside activations (PReLU's slopes) are left out; they are constants that belong to the activation.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = build_network(config.model)
    digest = hashlib.sha256()
    for name, convolution, norm in model.darknet_order():
        digest.update(name.encode())
        for module in (convolution, norm):
            for tensor in module.state_dict().values() if module is not None else ():
                digest.update(tensor.contiguous().numpy().tobytes())
    if weights:
        digest.update(file_hash(weights).encode())
    return digest.hexdigest()


def file_hash(path: str) -> str:
    """SHA-256 of a file; YolomishError where there is none."""
    try:
        with Path(path).open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            return digest.hexdigest()
    except OSError as error:
        raise YolomishError(f"{path} cannot be read: {error.strerror}") from None


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
    chosen = torch.device(choose_device(device))
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
