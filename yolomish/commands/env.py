"""``yolomish env``: what is installed here, to be pasted into a report."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import typer

PACKAGES = (
    *("torchvision", "triton", "numpy", "opencv-python", "pillow", "pycocotools", "onnx", "onnxruntime"),
    *("openvino", "tensorboard", "submitit", "scikit-learn"),
)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def env() -> None:
    """Print versions, processor, device, compiler and engines of this machine: put them into a bug report."""
    from yolomish.comparison.environment import environment
    from yolomish.kernels.native import compiler_command, compiler_missing

    rows = environment() | {"C++ compiler": compiler_missing() or compiler_command()}
    rows |= {name: _version(name) for name in PACKAGES}
    width = max(map(len, rows))
    for name, value in rows.items():
        typer.echo(f"{name:<{width}}  {value}")
