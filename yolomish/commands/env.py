"""``yolomish env``: what is installed here, to be pasted into a report."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import typer

from yolomish import __version__

ENGINES = ("onnxruntime", "openvino")  # besides torch
PACKAGES = (
    *("torchvision", "triton", "numpy", "opencv-python", "pillow", "pycocotools", "onnx", *ENGINES),
    *("tensorboard", "mlflow-skinny", "wandb", "submitit", "scikit-learn"),
)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def brief() -> str:
    """What ``--version`` prints, in three lines: yolomish, torch with its CUDA and GPU, the other engines."""
    import torch

    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    engines = ", ".join(f"{name} {_version(name)}" for name in ENGINES)
    return f"yolomish {__version__}\ntorch {torch.__version__} ({cuda}{gpu})\nengines: {engines}"


def env() -> None:
    """Print versions, processor, device, compiler and engines of this machine: put them into a bug report."""
    from yolomish.comparison.environment import environment
    from yolomish.kernels.native import compiler_command, compiler_missing

    rows = environment() | {"C++ compiler": compiler_missing() or compiler_command()}
    rows |= {name: _version(name) for name in PACKAGES}
    width = max(map(len, rows))
    for name, value in rows.items():
        typer.echo(f"{name:<{width}}  {value}")
