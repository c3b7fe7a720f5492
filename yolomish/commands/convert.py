"""``yolomish data convert``: one data format to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def convert(
    data: Annotated[str, typer.Argument(metavar="FROM", help="Data set: a YAML, .data, .json, .csv or folder, or shapes.")],
    target: Annotated[Path, typer.Argument(metavar="TO", help="New folder.")],
    form: Annotated[str, typer.Option("--to", metavar="FORMAT", help="coco, voc, yolo (ultralytics), darknet or openimages.")],
    link: Annotated[bool, typer.Option("--link", help="Link to the pictures instead of copying them.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a folder that an earlier conversion wrote.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written and lost as JSON.")] = False,
) -> None:
    """Write a data set in another format; what the format cannot hold is counted."""
    import json
    from dataclasses import asdict

    from yolomish.config import load_data_config
    from yolomish.data.convert import convert as run

    done = run(load_data_config(data), target, form, force=force, link=link)
    if as_json:
        typer.echo(json.dumps(asdict(done)))
        return
    for split, images in done.images.items():
        typer.echo(f"{split:6} {images} images, {done.boxes[split]} boxes")
    for what, count in done.lost.items():
        typer.echo(f"lost   {count} {what}")
    if not done.lost:
        typer.echo("lost   nothing")
    typer.echo(f"wrote {target}")
