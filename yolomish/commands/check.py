"""``yolomish check`` and ``yolomish anchors``: look at a data set before training on it."""

from __future__ import annotations

from typing import Annotated

import typer

from yolomish.commands.options import ImageSize, MaxPixels, split_list

SHOWN = 5


def check(
    data: Annotated[str, typer.Argument(help="Shipped data set (shapes) or a data YAML.")],
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail too.")] = False,
    fast: Annotated[bool, typer.Option("--fast", help="Read images' headers alone: no broken or equal pictures.")] = False,
    only: Annotated[str, typer.Option("--only", help="Ids of the checks to report, by commas; empty = all.")] = "",
    show_all: Annotated[bool, typer.Option("--all", help=f"Show every finding, not {SHOWN} of each kind.")] = False,
    max_pixels: MaxPixels = 0,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Threads that read images.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print all findings as JSON.")] = False,
) -> None:
    """Find what is wrong with a data set. Exit code 1 where there are errors (with --strict: or warnings)."""
    import json

    from yolomish.config import load_data_config
    from yolomish.data.check import CHECKS, by_check, check_data, counts
    from yolomish.errors import unknown_name

    wanted = split_list(only)
    for name in wanted:
        if name not in CHECKS:
            raise unknown_name("check", name, CHECKS)
    findings = [f for f in check_data(load_data_config(data), fast=fast, workers=workers) if not wanted or f.check in wanted]
    numbers = counts(findings)
    if as_json:
        items = [{"check": f.check, "severity": f.severity, "split": f.split, "message": f.message} for f in findings]
        typer.echo(json.dumps({"counts": numbers, "findings": items}))
    else:
        for name, group in by_check(findings).items():
            typer.echo(f"{CHECKS[name]:8} {name}: {len(group)}")
            for finding in group if show_all else group[:SHOWN]:
                typer.echo(f"         {finding.split}: {finding.message}")
            if len(group) > SHOWN and not show_all:
                typer.echo(f"         ... and {len(group) - SHOWN} more (--all)")
        typer.echo(f"{data}: {numbers['error']} errors, {numbers['warning']} warnings, {numbers['info']} notes")
    if numbers["error"] or (strict and numbers["warning"]):
        raise typer.Exit(1)


def anchors(
    data: Annotated[str, typer.Argument(help="Shipped data set (shapes) or a data YAML.")],
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="Anchors; the shipped models take 9.")] = 9,
    imgsz: ImageSize = "608",
    resize: Annotated[str, typer.Option("--resize", help="stretch or letterbox, as in training.")] = "stretch",
    model: Annotated[str, typer.Option("--model", help="Model whose anchors are measured beside the new ones.")] = "yolov4",
    seed: Annotated[int, typer.Option("--seed", help="Seed of the starts.")] = 0,
) -> None:
    """Anchors for the training boxes at a network size, by k-means with IoU; prints the line for a model YAML."""
    import numpy as np

    from yolomish.config import load_data_config, parse_size
    from yolomish.data.anchors import kmeans_anchors, mean_best_iou
    from yolomish.data.datasets import open_data
    from yolomish.errors import unknown_name
    from yolomish.networks import find_model
    from yolomish.types import size_text

    if resize not in ("stretch", "letterbox"):
        raise unknown_name("resize", resize, ("stretch", "letterbox"))
    size_hw = parse_size(imgsz, "--imgsz")
    labels, sizes = open_data(load_data_config(data), "train").boxes_at(size_hw, keep_aspect=resize == "letterbox")
    now = np.array(find_model(model).anchors, np.float64)
    new = kmeans_anchors(sizes, number, seed=seed).round().clip(1)
    typer.echo(f"# {len(labels)} boxes of {data} at {size_text(size_hw)} px, {resize}: mean IoU with the best anchor")
    typer.echo(f"# {mean_best_iou(sizes, now):.4f} with the {len(now)} of {model}, {mean_best_iou(sizes, new):.4f} with these")
    typer.echo("anchors: [" + ", ".join(f"[{w:.0f}, {h:.0f}]" for w, h in new) + "]")
