"""``yolomish train``: one run from options or from the folder of an interrupted one."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from yolomish.commands.options import (
    RECIPE_HELP,
    SIZE_HELP,
    Classes,
    Fraction,
    MaxPixels,
    Swap,
    TrainShare,
    Trust,
    choose_recipe,
    flag,
    given_options,
    read_data,
    split_list,
    task_of,
    trust_named,
)
from yolomish.config import (
    RESUMABLE,
    TrainConfig,
    check_train,
    from_dict,
    load_yaml,
    parse_size,
    recipe_model,
)
from yolomish.errors import YolomishError
from yolomish.files import free_name

WITH_RESUME = {"resume", "dry_run", "track", "trust", "max_pixels", *RESUMABLE}
# option -> TrainConfig key; an option left out keeps the recipe's value
SETTINGS = {
    "task": "task",
    "epochs": "epochs",
    "batch": "batch",
    "mini_batch": "mini_batch",
    "imgsz": "image_size",
    "optimizer": "optimizer",
    "lr": "peak_lr",
    "schedule": "schedule",
    "burn_in": "burn_in",
    "mosaic": "mosaic",
    "mixup": "mixup",
    "cutmix": "cutmix",
    "jitter": "jitter",
    "flip": "flip",
    "multi_scale": "multi_scale",
    "close_mosaic": "close_mosaic",
    "partners": "partners",
    "label_smoothing": "label_smoothing",
    "focal_gamma": "focal_gamma",
    "dropblock": "dropblock",
    "adversarial": "adversarial",
    "freeze": "freeze",
    "resize": "resize",
    "amp": "amp",
    "compile_": "compile",
    "kernels": "kernels",
    "memory": "memory",
    "cache": "cache",
    "device": "device",
    "workers": "workers",
    "seed": "seed",
    "eval_every": "eval_every",
    "ema": "ema",
}
RECIPE = " [the recipe's]"


def given_settings(ctx: typer.Context) -> dict[str, Any]:
    """The ``TrainConfig`` settings that stand on the command line."""
    settings = {SETTINGS[k]: ctx.params[k] for k in given_options(ctx) if k in SETTINGS}
    if "image_size" in settings:
        settings["image_size"] = parse_size(settings["image_size"], "--imgsz")
    if "freeze" in settings:
        settings["freeze"] = tuple(split_list(settings["freeze"]))
    return settings


def train(
    ctx: typer.Context,
    task: Annotated[str | None, typer.Option(help="detect or classify" + RECIPE)] = None,
    act: Annotated[
        str | None,
        typer.Option(help="Backbone activation: a registered name or FILE.py:NAME [the model's]", callback=trust_named),
    ] = None,
    neck_act: Annotated[str | None, typer.Option(help="Activation of neck and heads [the model's]", callback=trust_named)] = None,
    swap: Swap = None,
    trust: Trust = False,
    model: Annotated[str, typer.Option(help="Shipped model, a YAML or a Darknet .cfg [the recipe's, else yolov4]")] = "",
    data: Annotated[
        str, typer.Option(help="Data set: shapes (generated), digits, a YAML, .data, .json or .csv, or a folder.")
    ] = "shapes",
    fraction: Fraction = None,
    classes: Classes = "",
    train_share: TrainShare = None,
    recipe: Annotated[str, typer.Option(help=RECIPE_HELP)] = "scaled",
    weights: Annotated[str, typer.Option(help="Initial .pt, Darknet file or name (yolov4.conv.137) [none]")] = "",
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images" + RECIPE)] = None,
    batch: Annotated[int | None, typer.Option(help="Images a step, over all mini-batches and processes" + RECIPE)] = None,
    mini_batch: Annotated[
        int | None, typer.Option(help="Images in memory at once; 0: all, -1: as the GPU holds" + RECIPE)
    ] = None,
    imgsz: Annotated[str | None, typer.Option("--imgsz", "--img-size", "--img", metavar="PX", help=SIZE_HELP + RECIPE)] = None,
    optimizer: Annotated[str | None, typer.Option(help="sgd or adamw" + RECIPE)] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate" + RECIPE)] = None,
    schedule: Annotated[str | None, typer.Option(help="cosine, linear, steps or poly" + RECIPE)] = None,
    burn_in: Annotated[int | None, typer.Option(help="Burn-in in steps, at most a fifth of the run" + RECIPE)] = None,
    mosaic: Annotated[float | None, typer.Option(help="Share of mosaic images, 0 to 1" + RECIPE)] = None,
    mixup: Annotated[float | None, typer.Option(help="Share of images blended with another, 0 to 1" + RECIPE)] = None,
    cutmix: Annotated[float | None, typer.Option(help="Share of images with a window of another, 0 to 1" + RECIPE)] = None,
    jitter: Annotated[float | None, typer.Option(help="Crop and scale jitter, a share of the size" + RECIPE)] = None,
    flip: Annotated[float | None, typer.Option(help="Probability of a left-right flip, 0 to 1" + RECIPE)] = None,
    multi_scale: Annotated[float | None, typer.Option(help="Largest size factor, such as 1.4; 0: one size" + RECIPE)] = None,
    close_mosaic: Annotated[int | None, typer.Option(help="Last epochs without mosaic, mixup and cutmix" + RECIPE)] = None,
    partners: Annotated[str | None, typer.Option(help="Whom those mix: all images, or the mini-batch's, sooner" + RECIPE)] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="Class label smoothing, 0 to 1" + RECIPE)] = None,
    focal_gamma: Annotated[float | None, typer.Option(help="Focal loss exponent, such as 1.5; 0: off" + RECIPE)] = None,
    dropblock: Annotated[float | None, typer.Option(help="DropBlock probability on the backbone, 0 to 1" + RECIPE)] = None,
    adversarial: Annotated[
        float | None, typer.Option(help="Self-adversarial step in image units of 0 to 1, such as 0.01; 0: off" + RECIPE)
    ] = None,
    freeze: Annotated[str | None, typer.Option(help="Parts or modules that are not trained, such as backbone" + RECIPE)] = None,
    resize: Annotated[str | None, typer.Option(help="stretch or letterbox" + RECIPE)] = None,
    amp: Annotated[str | None, typer.Option(help="Mixed precision: off, bf16 (CUDA, CPUs) or fp16 (CUDA)" + RECIPE)] = None,
    compile_: Annotated[bool | None, typer.Option("--compile/--no-compile", help="Use torch.compile" + RECIPE)] = None,
    kernels: Annotated[str | None, typer.Option(help="Batch norm + activation: auto, eager, fused or compile" + RECIPE)] = None,
    memory: Annotated[str | None, typer.Option(help="normal, or lean: activations are recomputed in backward" + RECIPE)] = None,
    cache: Annotated[str | None, typer.Option(help="off, ram or disk: decoded images stay there" + RECIPE)] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps" + RECIPE)] = None,
    workers: Annotated[int | None, typer.Option(help="Loader processes; does not change the result" + RECIPE)] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and augmentation" + RECIPE)] = None,
    eval_every: Annotated[int | None, typer.Option(help="Epochs between evaluations" + RECIPE)] = None,
    ema: Annotated[bool | None, typer.Option("--ema/--no-ema", help="Average the weights, evaluate those" + RECIPE)] = None,
    max_pixels: MaxPixels = 0,
    name: Annotated[str, typer.Option(help="Name of the run's folder [MODEL-ACT]")] = "",
    output: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs/train"),
    resume: Annotated[
        str,
        typer.Option(
            help="Run folder or its last.pt to go on with, or a run that a comparison has planned, to begin [a new run]"
        ),
    ] = "",
    track: Annotated[
        str, typer.Option(help="What else is told of the run, by commas: tensorboard, mlflow, wandb; empty: nothing.")
    ] = "tensorboard",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check settings, data and one batch; write nothing.")] = False,
) -> None:
    """Train one detector and evaluate it with COCO's metrics, or with --task classify one classifier."""
    log = partial(typer.echo, err=True)
    settings = given_settings(ctx)
    if resume:
        if wrong := sorted(given_options(ctx) - WITH_RESUME):
            raise YolomishError(f"--resume keeps the run's settings: leave out {', '.join(map(flag, wrong))}")
        folder = Path(resume).parent if Path(resume).suffix == ".pt" else Path(resume)
        begun = not (folder / "identity.json").is_file() or (folder / "last.pt").is_file()
        if begun:
            config = from_dict(TrainConfig, load_yaml(folder / "config.yaml"), str(folder / "config.yaml"))
        else:  # of a comparison
            from yolomish.comparison.train import planned

            config = planned(folder, settings.get("device", ""))
        config = replace(config, **settings)
    else:
        from yolomish.networks import find_model

        given = given_options(ctx)
        if task == "classify" and "recipe" not in given:
            recipe = "resnet50-paper"
        if (task or task_of(recipe, model)) == "classify" and "data" not in given:
            data = "digits"
        model = model or recipe_model(recipe) or "yolov4"
        structure = find_model(model)
        structure = replace(
            structure,
            activation=structure.activation if act is None else act,
            neck_activation=structure.neck_activation if neck_act is None else neck_act,
            swap=(*structure.swap, *(swap or ())),
        )
        config = choose_recipe(
            recipe, model, structure, read_data(data, fraction, classes, train_share), settings, log, details=dry_run
        )
        config = replace(config, initial_weights=weights)
        shown = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(structure.activation).name)
        folder = free_name(output / (name or f"{Path(model).stem}-{shown}".rstrip("-")))
    check_train(config)

    from yolomish.training.loop import Terminated, fit, try_out  # torch is slow to import
    from yolomish.training.trackers import check_trackers

    check_trackers(trackers := split_list(track))
    if dry_run:
        try_out(config, log=log)
        typer.echo("dry run: settings, data and one batch are fine; nothing written")
        return
    try:
        result = fit(config, folder, resume=bool(resume) and begun, track=trackers, log=log)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except Terminated:
        raise typer.Exit(143) from None
    if int(os.environ.get("RANK", "0")):
        return
    values = "  ".join(f"{name} {result.metrics.values[name]:.4f}" for name in result.columns)
    typer.echo(f"{values}  {result.step_ms:.1f} ms/step")
    typer.echo(f"wrote {folder}: best.pt, last.pt, results.csv, timing.csv, curves.png, config.yaml")
