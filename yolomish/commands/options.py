"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from typing import Annotated

import typer

from yolomish.config import parse_size

SIZE_HELP = "Network size in px: 416, or height x width as 416x608"
ImageSize = Annotated[
    str, typer.Option("--imgsz", "--img-size", "--img", metavar="PX", help=f"{SIZE_HELP}; empty = the weights' own.")
]
Swap = Annotated[
    list[str] | None,
    typer.Option(
        "--swap",
        metavar="SCOPE=ACT",
        help="Put another activation in: backbone=relu, leaky_relu=mish, 0-104=silu (numbers of `info`), a module; repeatable.",
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]


def read_size(text: str) -> tuple[int, int] | None:
    """(height, width) of an option, None where it was left empty; YolomishError for what is no size."""
    return parse_size(text, "--imgsz") if text else None


def split_list(text: str) -> list[str]:
    """The parts of a list by commas, empty ones left out."""
    return [part.strip() for part in text.split(",") if part.strip()]
