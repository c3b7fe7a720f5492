"""``yolomish weights``: which there are, where they lie, and in which format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from yolomish.commands.help import command
from yolomish.commands.options import Force, Trust

weights_app = typer.Typer(no_args_is_help=True, help="Fetch, list, describe and convert weights.")


@command(weights_app, "list", "yolomish weights list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False) -> None:
    """List the weights that can be named, and what lies in the weights folder."""
    import json

    from yolomish.weights.store import known_weights, weights_folder

    entries = known_weights()
    if as_json:
        keys = {"name": "name", "bytes": "size", "accuracy": "accuracy", "bflops": "bflops", "about": "about"}
        told = [{key: getattr(e, field) for key, field in keys.items()} | {"path": str(e.path or "")} for e in entries]
        typer.echo(json.dumps(told))
        return
    typer.echo(f"{'name':24} {'MB':>6}  {'here':4} {'BFLOPs':>6}  {'as published':38} about")
    for entry in entries:
        cost = f"{entry.bflops:g}" if entry.bflops else "-"
        facts = f"{entry.size / 1e6:6.1f}  {'yes' if entry.path else '-':4} {cost:>6}  {entry.accuracy or '-':38}"
        typer.echo(f"{entry.name:24} {facts} {entry.about}")
    typer.echo(f"folder: {weights_folder()}")


@command(weights_app, "get", "yolomish weights get yolov4-tiny")
def get(names: Annotated[list[str], typer.Argument(help="Names from `yolomish weights list`, such as yolov4.")]) -> None:
    """Fetch published weights into the weights folder; an interrupted download goes on where it stopped."""
    from yolomish.weights.store import locate_weights

    for name in names:
        typer.echo(str(locate_weights(name)))


@command(weights_app, "import", "yolomish weights import my.weights --cfg my.cfg --names my.names")
def import_(
    source: Annotated[str, typer.Argument(help="Darknet .weights file or its name.")],
    cfg: Annotated[str, typer.Option("--cfg", help="Darknet .cfg that belongs to it [--model]")] = "",
    model: Annotated[str, typer.Option("--model", help="Shipped model or YAML that the file fits [by itself]")] = "",
    names: Annotated[str, typer.Option("--names", help="File with one class name a line [COCO's, or numbers]")] = "",
    output: Annotated[str, typer.Option("--output", help="Checkpoint to write [beside the source, as .pt]")] = "",
    force: Force = False,
) -> None:
    """Turn Darknet weights into one checkpoint that knows its structure, classes and origin."""
    from yolomish.files import read_names
    from yolomish.weights.describe import import_darknet
    from yolomish.weights.store import locate_weights

    path = locate_weights(source)
    target = Path(output) if output else path.with_suffix(".pt")
    import_darknet(path, target, cfg=cfg, model=model, names=read_names(names) if names else (), force=force)
    typer.echo(f"wrote {target}")


@command(
    weights_app, "export", "yolomish weights export best.pt --output darknet", "yolomish weights export yolov4.weights --cut 137"
)
def export(
    source: Annotated[str, typer.Argument(help="Our checkpoint (.pt) or its name; with --cut a .weights file too.")],
    output: Annotated[str, typer.Option("--output", help="Folder [the checkpoint's]")] = "",
    cut: Annotated[
        int,
        typer.Option("--cut", min=0, max=10_000, help="Write only the first N sections' weights, to start others from; 0 = all."),
    ] = 0,
    force: Force = False,
    trust: Trust = False,
) -> None:
    """Write a checkpoint as Darknet's .weights, .cfg and .names, or its beginning as .conv.N."""
    from yolomish.darknet.write import opencv_lacks
    from yolomish.weights.describe import cut_darknet, write_darknet
    from yolomish.weights.load import load_network
    from yolomish.weights.store import locate_weights

    path = locate_weights(source)
    folder, loaded = Path(output) if output else path.parent, load_network(str(path))
    files = [cut_darknet(loaded, folder, path.stem, cut)] if cut else write_darknet(loaded, folder, path.stem, force=force)
    if note := "" if cut else opencv_lacks(loaded.network):
        typer.echo(note, err=True)
    for file in files:
        typer.echo(f"wrote {file}")


@command(weights_app, "info", "yolomish weights info yolov4-tiny")
def info(
    source: Annotated[str, typer.Argument(help="A .pt, .weights or .conv.N file, or its name.")],
    cfg: Annotated[str, typer.Option("--cfg", help="Darknet .cfg that belongs to it [by the file's size]")] = "",
    model: Annotated[str, typer.Option("--model", help="Shipped model or YAML [by the file's size]")] = "",
    trust: Trust = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a weights file holds: header, iterations, layers, activations, checksum, origin."""
    import dataclasses
    import json

    from yolomish.weights.describe import describe_weights
    from yolomish.weights.store import locate_weights

    report = describe_weights(locate_weights(source), cfg=cfg, model=model)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(report)))
        return
    counts = ", ".join(f"{n} {name}" for name, n in report.activations.items())
    typer.echo(f"{report.path}: {report.kind}, {report.bytes:,} bytes")
    typer.echo(f"model       {report.model}, {report.num_classes} classes, {report.convolutions} convolutions")
    typer.echo(f"parameters  {report.parameters:,}")
    typer.echo(f"activations {counts} ({report.activations_from})")
    if report.images_seen is not None:
        typer.echo(f"training    {report.images_seen:,} images seen: {report.iterations:,} iterations of 64")
    typer.echo(f"sha256      {report.sha256}")
    typer.echo(f"provenance  {report.provenance}")
