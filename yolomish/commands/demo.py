"""``yolomish demo``: from nothing to a report and a picture, on generated data, on a laptop."""

from __future__ import annotations

import dataclasses
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yolomish.commands.options import trust_named

if TYPE_CHECKING:
    from yolomish.config import TrainConfig


def demo_config() -> TrainConfig:
    """The demo's training configuration: two runs of it take some minutes on 2 CPU cores and reach AP50 0.60."""
    from yolomish.config import load_data_config, load_model_config, load_recipe

    return dataclasses.replace(load_recipe("small", load_model_config("yolov4-n")), data=load_data_config("shapes"), epochs=20)


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the runs, the report and the picture.")] = Path("runs/demo"),
    epochs: Annotated[int, typer.Option("--epochs", help="Passes over the training images; 0 = the demo's own number.")] = 0,
    acts: Annotated[
        str, typer.Option("--acts", help="Two or more activations, separated by commas.", callback=trust_named)
    ] = "mish,leaky_relu",
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, max=1000, help="Trainings of each activation, with different seeds.")
    ] = 1,
) -> None:
    """Compare two activations on generated pictures, then detect on a held-out one: minutes on a CPU, no downloads."""
    import shlex

    from yolomish.commands.compare import split_acts
    from yolomish.config import check_train
    from yolomish.errors import YolomishError

    names = split_acts(acts)
    if epochs < 0:
        raise YolomishError(f"epochs must be at least 1 (or 0 for the demo's own number), not {epochs}")
    base = demo_config()
    base = dataclasses.replace(base, epochs=epochs or base.epochs)
    check_train(base)

    from yolomish.comparison import compare_activations
    from yolomish.comparison.render import headline
    from yolomish.comparison.train import side_by_side
    from yolomish.data.datasets import open_data
    from yolomish.data.images import read_image, write_image
    from yolomish.drawing.boxes import draw_detections
    from yolomish.inference.detector import Detector
    from yolomish.weights.load import load_network

    command = f"yolomish demo --epochs {base.epochs} --acts {shlex.quote(acts)} --seeds {seeds}"
    log = partial(print, file=sys.stderr, flush=True)
    devices = side_by_side(len(names) * seeds, base.device)
    report = compare_activations(base, names, seeds, out, devices=devices, command=command, log=log)
    shown = next((arm.label for arm in report.arms if arm.activation == "mish"), report.arms[0].label)
    run = next(run for run in report.runs if run.arm == shown)
    network = load_network(str(run.best))
    detector = Detector(network)
    image = read_image(open_data(base.data, "val").path(0))
    found = detector.detect(image)
    picture = out / "detections.png"
    write_image(picture, draw_detections(image, found, detector.names))
    typer.echo(f"{shown} finds {len(found)} object{'' if len(found) == 1 else 's'} in a held-out picture: {picture}")
    for arm in report.arms:
        typer.echo(f"{arm.label}: AP50 {arm.mean['AP50']:.4f}, AP {arm.mean['AP']:.4f}, {arm.step_ms:.0f} ms a step")
    typer.echo(headline(report))
    typer.echo(f"report: {out / 'report.html'}")
