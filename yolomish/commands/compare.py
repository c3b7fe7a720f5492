"""``yolomish compare``: the same training with different activations, and a report of what it made."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from yolomish.commands.train import RECIPE, SETTINGS, given_settings


def split_acts(acts: str) -> list[str]:
    """Names separated by commas; YolomishError for fewer than two or one that cannot be built."""
    from yolomish.activations import build_activation
    from yolomish.errors import YolomishError

    names = [name.strip() for name in acts.split(",") if name.strip()]
    if len(names) < 2:
        raise YolomishError(f"--acts needs at least two names, not {acts!r}: --acts mish,leaky_relu")
    for name in names:
        build_activation(name)
    return names


def compare(
    ctx: typer.Context,
    acts: Annotated[
        str, typer.Option("--acts", help="Two or more activations, separated by commas; a repeated one makes an A/A test.")
    ] = "mish,leaky_relu",
    seeds: Annotated[int, typer.Option("--seeds", help="Trainings of each activation, with different seeds.")] = 2,
    scope: Annotated[
        str, typer.Option("--scope", help="Where the activation changes: backbone, neck (with heads) or all.")
    ] = "backbone",
    data: Annotated[str, typer.Option("--data", help="Built-in data set (shapes) or a data YAML.")] = "shapes",
    model: Annotated[str, typer.Option("--model", help="Shipped model (yolov4, yolov4-s, yolov4-n) or a YAML.")] = "yolov4-n",
    recipe: Annotated[str, typer.Option("--recipe", help="Training recipe: small, darknet, scaled or a YAML.")] = "small",
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the training images" + RECIPE)] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Images a step" + RECIPE)] = None,
    imgsz: Annotated[int | None, typer.Option("--imgsz", help="Network size in px, a multiple of 32" + RECIPE)] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Peak learning rate" + RECIPE)] = None,
    burn_in: Annotated[int | None, typer.Option("--burn-in", help="Steps of warm-up to the peak rate" + RECIPE)] = None,
    eval_every: Annotated[int | None, typer.Option("--eval-every", help="Epochs between evaluations" + RECIPE)] = None,
    amp: Annotated[str | None, typer.Option("--amp", help="Mixed precision on CUDA: off, bf16 or fp16" + RECIPE)] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="The first seed; the others count up from it" + RECIPE)] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Processes that load images; 0: none" + RECIPE)] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda:N" + RECIPE)] = None,
    output: Annotated[Path, typer.Option("--output", help="Folder that holds comparisons.")] = Path("runs/compare"),
    name: Annotated[
        str, typer.Option("--name", help="Folder inside --output; a finished run in it is kept. Empty = from the options.")
    ] = "",
) -> None:
    """Train the same model with different activations, everything else equal, and report the difference."""
    import shlex

    from yolomish.config import check_train, load_data_config, load_model_config, load_recipe

    names = split_acts(acts)
    settings = given_settings(ctx)
    base = replace(load_recipe(recipe, load_model_config(model)), data=load_data_config(data), **settings)
    check_train(base)
    from yolomish.comparison.run import run_comparison

    words = "".join(c if c.isalnum() or c in "_-" else " " for c in "-".join([*names, scope, Path(data).stem])).split()
    folder = output / (name or "-".join(words))
    options = {"acts": acts, "seeds": seeds, "scope": scope, "data": data, "model": model, "recipe": recipe}
    options |= {k.replace("_", "-"): ctx.params[k] for k, v in SETTINGS.items() if v in settings}
    command = "yolomish compare " + " ".join(f"--{key} {shlex.quote(str(value))}" for key, value in options.items())
    run_comparison(base, names, seeds, folder, scope=scope, command=command, log=lambda text: print(text, file=sys.stderr))
    typer.echo((folder / "report.md").read_text(encoding="utf-8").split("\n## Paired")[0].strip())
    typer.echo(f"wrote {folder / 'report.html'}")
