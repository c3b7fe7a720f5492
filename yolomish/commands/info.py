"""``yolomish info``: layers, parameters, BFLOPs and activation counts of a model."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from yolomish.commands.options import ImageSize, Swap, Trust, read_size, trust_named


def info(
    model: Annotated[
        str, typer.Argument(help="Shipped model (yolov4, yolov4-tiny, pacsp-s, ...), a YAML, or a Darknet .cfg.")
    ] = "yolov4",
    imgsz: ImageSize = "",
    act: Annotated[str, typer.Option("--act", help="Backbone activation [the model's own]", callback=trust_named)] = "",
    neck_act: Annotated[str, typer.Option("--neck-act", help="Neck activation [the model's own]", callback=trust_named)] = "",
    swap: Swap = None,
    trust: Trust = False,
    layers: Annotated[bool, typer.Option("--layers/--no-layers", help="Print the layer table.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Print a model's layers, parameters, BFLOPs (2 x MAC) at a size, and activation counts."""
    import dataclasses

    import torch

    from yolomish.darknet.cfg import load_cfg
    from yolomish.darknet.summary import summarise
    from yolomish.kernels import describe
    from yolomish.networks import find_model
    from yolomish.networks.registry import cfg_file
    from yolomish.ops.device import choose_device
    from yolomish.types import size_text

    config = find_model(model)
    for note in load_cfg(cfg).notes if (cfg := cfg_file(model)) else ():
        typer.echo(note, err=True)
    config = dataclasses.replace(
        config,
        activation=act or config.activation,
        neck_activation=neck_act or config.neck_activation,
        swap=(*config.swap, *(swap or ())),
    )
    summary = summarise(config, read_size(imgsz) or config.image_size)
    if as_json:
        typer.echo(json.dumps(asdict(summary)))
        return
    if layers:
        typer.echo(f"{'#':>3} {'layer':34} {'kernel':>6} {'input':>15} {'output':>15} {'activation':>12} {'BFLOPs':>7}")
        for layer in summary.layers:
            shapes = ["x".join(map(str, s)) for s in (layer.input_chw, layer.output_chw)]
            kernel = f"{layer.kernel}/{layer.stride}"
            line = f"{layer.number:3} {layer.name:34} {kernel:>6} {shapes[0]:>15} {shapes[1]:>15}"
            typer.echo(f"{line} {layer.activation:>12} {layer.bflops:7.3f}")
    counts = ", ".join(f"{n} {name}" for name, n in summary.activations.items())
    typer.echo(
        f"{config.name}: {summary.parameters:,} parameters, {summary.bflops:.1f} BFLOPs at "
        f"{size_text(summary.image_size_hw)} px, {len(summary.layers)} convolutions ({counts}), {config.num_classes} classes"
    )
    typer.echo(describe(choose_device("auto"), torch.float32, list(summary.activations)))
