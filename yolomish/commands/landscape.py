"""``yolomish landscape``: the Mish paper's analyses. Each writes a PNG and its data as JSON."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from yolomish.commands.help import command
from yolomish.commands.options import Device, Trust, required_list, split_list, trust_named
from yolomish.errors import YolomishError

MOST_SEED = 2**32 - 1  # as in training
landscape = typer.Typer(no_args_is_help=True, help="Loss and output landscapes, noise, sweeps: PNG and JSON.")

OUTPUT = typer.Option("--output", help="Folder; a number is added if it exists.")
WEIGHTS = typer.Argument(help="One or more .pt checkpoints.")
DATA = typer.Option("--data", help="Data set, as for eval [the one that the checkpoint was trained with]")


def _write(output: str, name: str, content: Any) -> Path:
    from yolomish.files import free_folder, write_json

    folder = free_folder(Path(output))
    write_json(folder / f"{name}.json", content)
    return folder / f"{name}.png"


def _labels(names: list[str], weights: list[str]) -> list[str]:
    """Distinct labels: an activation's name, with the run's folder where that repeats."""
    return [name if names.count(name) == 1 else f"{name} ({Path(w).parent.name})" for name, w in zip(names, weights, strict=True)]


@command(landscape, "loss", "yolomish landscape loss mish/best.pt relu/best.pt --points 21")
def loss(
    weights: Annotated[list[str], WEIGHTS],
    data: Annotated[str, DATA] = "",
    trust: Trust = False,
    images: Annotated[
        int, typer.Option("--images", min=1, max=1_000_000, help="Validation images that the loss is measured on.")
    ] = 16,
    points: Annotated[
        int, typer.Option("--points", min=3, max=1001, help="Points a direction, odd; the cost grows with its square.")
    ] = 11,
    radius: Annotated[float, typer.Option("--radius", help="Largest step, in filter norms.")] = 1.0,
    batch_norm: Annotated[str, typer.Option("--batch-norm", help="Statistics: running (trained) or batch (each point's).")] = (
        "running"
    ),
    seed: Annotated[int, typer.Option("--seed", min=0, max=MOST_SEED, help="Seed of the two directions.")] = 0,
    device: Device = "auto",
    output: Annotated[str, OUTPUT] = "runs/landscape/loss",
) -> None:
    """The loss around trained weights in two filter-normalised directions (Li et al. 2018)."""
    import dataclasses

    from yolomish.analysis.loss_landscape import checkpoint_landscape
    from yolomish.analysis.plots import plot_loss
    from yolomish.ops.device import choose_device

    options: dict[str, Any] = {"data": data, "images": images, "points": points, "radius": radius, "batch_norm": batch_norm}
    found = [checkpoint_landscape(w, **options, seed=seed, device=choose_device(device)) for w in weights]
    labels = _labels([f.label for f in found], weights)
    found = [dataclasses.replace(f, label=label) for f, label in zip(found, labels, strict=True)]
    content = [
        {**dataclasses.asdict(f), "weights": w, "steps": f.steps.tolist(), "loss": f.loss.tolist(), "seed": seed}
        for f, w in zip(found, weights, strict=True)
    ]
    picture = _write(output, "loss_landscape", content)
    plot_loss(found, picture)
    for f in found:
        middle = points // 2
        ring = [f.loss[middle, 0], f.loss[middle, -1], f.loss[0, middle], f.loss[-1, middle]]
        typer.echo(
            f"{f.label}: loss {f.loss[middle, middle]:.4f} at the centre, {min(ring):.4f} to {max(ring):.4f} at {radius:g}"
        )
    typer.echo(f"wrote {picture.parent}: loss_landscape.png, loss_landscape.json")


@command(landscape, "output", "yolomish landscape output --acts mish,relu")
def output_(
    acts: Annotated[
        str, typer.Option("--acts", help="Activations, by commas.", callback=trust_named)
    ] = "relu,leaky_relu,silu,mish",
    layers: Annotated[int, typer.Option("--layers", min=1, max=10_000, help="Linear layers.")] = 5,
    width: Annotated[int, typer.Option("--width", min=1, max=10_000, help="Units of a hidden layer.")] = 64,
    points: Annotated[int, typer.Option("--points", min=3, max=10_000, help="Grid points a side.")] = 201,
    span: Annotated[float, typer.Option("--span", help="The inputs run from -span to span.")] = 4.0,
    seed: Annotated[int, typer.Option("--seed", min=0, max=MOST_SEED, help="Seed of the weights, the same for all.")] = 0,
    output: Annotated[str, OUTPUT] = "runs/landscape/output",
) -> None:
    """The output of a random network over its two inputs, for each activation."""
    from yolomish.analysis.output_landscape import output_landscape
    from yolomish.analysis.plots import plot_outputs

    if not 0 < span < math.inf:
        raise YolomishError(f"--span must be a positive number, not {span}")
    names = required_list(acts, "--acts")
    found = [output_landscape(name, layers=layers, width=width, points=points, span=span, seed=seed) for name in names]
    content = [
        {"activation": f.activation, "roughness": f.roughness(), "axis": f.axis.tolist(), "values": f.values.tolist()}
        for f in found
    ]
    picture = _write(output, "output_landscape", content)
    plot_outputs(found, picture)
    for f in found:
        typer.echo(f"{f.activation}: roughness {f.roughness():.3e}")
    typer.echo(f"wrote {picture.parent}: output_landscape.png, output_landscape.json")


@command(landscape, "noise", "yolomish landscape noise mish/best.pt relu/best.pt --sigmas 0,0.1,0.2")
def noise(
    weights: Annotated[list[str], WEIGHTS],
    data: Annotated[str, DATA] = "",
    trust: Trust = False,
    sigmas: Annotated[str, typer.Option("--sigmas", help="Standard deviations of the noise, images in 0..1, by commas.")] = (
        "0,0.05,0.1,0.15,0.2"
    ),
    images: Annotated[int, typer.Option("--images", min=0, max=1_000_000, help="Validation images; 0 = all.")] = 0,
    batch: Annotated[int, typer.Option("--batch", min=1, max=65_536, help="Images a batch.")] = 8,
    seed: Annotated[int, typer.Option("--seed", min=0, max=MOST_SEED, help="Seed of the noise, the same for all weights.")] = 0,
    device: Device = "auto",
    output: Annotated[str, OUTPUT] = "runs/landscape/noise",
) -> None:
    """AP, or a classifier's top-1, over the strength of Gaussian noise on the images."""
    import sys

    from yolomish.analysis.noise import noise_curve
    from yolomish.analysis.plots import plot_noise
    from yolomish.config import load_data_config
    from yolomish.weights.load import load_network

    try:
        strengths = [float(s) for s in required_list(sigmas, "--sigmas")]
    except ValueError:
        raise YolomishError(f"--sigmas takes numbers separated by commas, not {sigmas!r}") from None
    tasks = {path: load_network(path).config.task for path in weights}
    if len(set(tasks.values())) > 1:
        raise YolomishError("detectors and classifiers have no common curve: " + ", ".join(map(" to ".join, tasks.items())))
    source = load_data_config(data) if data else None
    options: dict[str, Any] = {"data": source, "images": images, "batch": batch, "seed": seed, "device": device}
    curves = [noise_curve(path, strengths, **options, log=lambda text: print(text, file=sys.stderr)) for path in weights]
    labels = _labels([curve.label for curve in curves], weights)
    labelled = dict(zip(labels, curves, strict=True))
    content = {label: [{"sigma": p.sigma, **p.values} for p in curve.points] for label, curve in labelled.items()}
    picture = _write(output, "noise", content)
    plot_noise(labelled, picture)
    for label, curve in labelled.items():
        name = curve.metrics[0]
        typer.echo(f"{label}: {name} " + ", ".join(f"{p.values[name]:.3f} at {p.sigma:g}" for p in curve.points))
    typer.echo(f"wrote {picture.parent}: noise.png, noise.json")


@command(landscape, "sweep", "yolomish landscape sweep --over depth --acts mish,relu --values 5,15,25")
def sweep_(
    over: Annotated[
        str, typer.Option("--over", help="What is swept: depth, width, batch, lr, dropout, optimizer or initialiser.")
    ] = "depth",
    values: Annotated[str, typer.Option("--values", help="Its values, by commas; empty = a range of each.")] = "",
    acts: Annotated[
        str, typer.Option("--acts", help="Activations, by commas.", callback=trust_named)
    ] = "relu,leaky_relu,silu,mish",
    data: Annotated[
        str, typer.Option("--data", help="shapes (their objects, cut out), digits, or any data to classify, such as MNIST's.")
    ] = "shapes",
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=1000, help="Trainings of each.")] = 3,
    depth: Annotated[int, typer.Option("--depth", help="Hidden layers.")] = 5,
    width: Annotated[int, typer.Option("--width", help="Units of a hidden layer (the paper: 500).")] = 64,
    epochs: Annotated[int, typer.Option("--epochs", help="Passes over the pictures.")] = 15,
    batch: Annotated[int, typer.Option("--batch", help="Pictures a step (the paper: 128).")] = 64,
    lr: Annotated[float, typer.Option("--lr", help="Peak learning rate of SGD.")] = 0.05,
    dropout: Annotated[float, typer.Option("--dropout", help="Share of units dropped.")] = 0.25,
    optimizer: Annotated[str, typer.Option("--optimizer", help="sgd, adam, adamw, nadam, radam, rmsprop, adagrad.")] = "sgd",
    initialiser: Annotated[
        str, typer.Option("--initialiser", help="torch, kaiming_*, xavier_* (normal, uniform), orthogonal.")
    ] = "torch",
    side: Annotated[int, typer.Option("--side", help="Side of the pictures in px (MNIST: 28).")] = 16,
    output: Annotated[str, OUTPUT] = "runs/landscape/sweep",
) -> None:
    """Accuracy of small plain networks over one setting: the paper's experiments on MNIST."""
    import dataclasses
    import sys

    from yolomish.analysis.plots import plot_sweep
    from yolomish.analysis.sweep import PlainConfig, picture_task, read_values, shape_task, sweep
    from yolomish.config import load_data_config

    names, swept = required_list(acts, "--acts"), read_values(over, split_list(values))
    config = PlainConfig(
        depth=depth,
        width=width,
        epochs=epochs,
        batch=batch,
        lr=lr,
        dropout=dropout,
        optimizer=optimizer,
        initialiser=initialiser,
        side=side,
    )
    task = shape_task(side) if data == "shapes" else picture_task(load_data_config(data), side)
    points = sweep(names, over, swept, seeds, config, task, log=lambda text: print(text, file=sys.stderr, flush=True))
    content = {"config": dataclasses.asdict(config), "over": over, "data": data}
    picture = _write(output, "sweep", content | {"points": [dataclasses.asdict(p) for p in points]})
    plot_sweep(points, over, picture)
    for name in names:
        means = []
        for value in swept:
            found = [p.accuracy for p in points if p.activation == name and p.value == value]
            means.append(f"{sum(found) / len(found):.3f} at {value}")
        typer.echo(f"{name}: accuracy " + ", ".join(means))
    typer.echo(f"wrote {picture.parent}: sweep.png, sweep.json")
