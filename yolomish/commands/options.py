"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from yolomish.config import (
    DataConfig,
    ModelConfig,
    TrainConfig,
    check_fields,
    load_data_config,
    load_recipe,
    parse_size,
    recipe_task,
)
from yolomish.errors import YolomishError
from yolomish.trust import HELP as TRUST_HELP
from yolomish.trust import trust_file, trusting


def trust_named(value: Any) -> Any:
    """Let the activation files that stand in an option run: the user has named them. The value is returned as it is."""
    for text in value if isinstance(value, list | tuple) else [value]:
        for part in {text, *re.split("[,=]", text)} if isinstance(text, str) else ():
            file, sign, _ = part.rpartition(".py:")
            if sign and Path(f"{file}.py").is_file():
                trust_file(f"{file}.py")
    return value


def _limit(ctx: typer.Context, value: int) -> int:
    if value:
        before = os.environ.get("YOLOMISH_MAX_PIXELS", "")
        os.environ["YOLOMISH_MAX_PIXELS"] = str(value)  # for the processes that load images, too
        ctx.call_on_close(lambda: os.environ.update(YOLOMISH_MAX_PIXELS=before))
    return value


def _trust(ctx: typer.Context, value: bool) -> bool:
    if value:
        ctx.with_resource(trusting())
    return value


SIZE_HELP = "Network size in px: 416, or height x width as 416x608"
ImageSize = Annotated[str, typer.Option("--imgsz", "--img-size", "--img", metavar="PX", help=f"{SIZE_HELP} [the weights' own]")]
NMS_HELP = "own (the network's, as its cfg says), greedy-diou, diou or iou [the protocol's]"
Swap = Annotated[
    list[str] | None,
    typer.Option(
        "--swap",
        metavar="SCOPE=ACT",
        help="Put another activation in: backbone=relu, leaky_relu=mish, 0-104=silu (numbers of `info`), a module; repeatable.",
        callback=trust_named,
    ),
]
Trust = Annotated[bool, typer.Option("--trust", help=TRUST_HELP, callback=_trust)]
MaxPixels = Annotated[
    int,
    typer.Option(
        "--max-pixels", min=0, max=2**40, help="Largest picture that is decoded, in pixels; 0 = 179 million.", callback=_limit
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files that are there already.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
YAML = "[the data YAML's, else all]"
Fraction = Annotated[
    float | None, typer.Option("--fraction", help=f"Share of each split's images, 0 to 1, chosen by their names {YAML}")
]
Classes = Annotated[str, typer.Option("--classes", metavar="NAMES", help=f"Classes kept, by commas {YAML}")]
TRAIN_SHARE_HELP = "Divide the train split: this share, 0 to 1, trains, the rest is val [the data YAML's, else not]"
TrainShare = Annotated[float | None, typer.Option("--split", "--train-share", metavar="SHARE", help=TRAIN_SHARE_HELP)]
RECIPE_HELP = (
    "Training recipe: small, finetune, darknet, scaled, paper-*; to classify digits, resnet50-paper, darknet-omega; a YAML; or "
    "cfg: the model's own cfg."
)
Log = Callable[[str], None]


def given_options(ctx: typer.Context) -> set[str]:
    """The parameters that stand on the command line."""
    return {k for k in ctx.params if getattr(ctx.get_parameter_source(k), "name", "") == "COMMANDLINE"}


def flag(parameter: str) -> str:
    """How a parameter is spelt on the command line."""
    return f"--{parameter.rstrip('_').replace('_', '-')}"


def read_size(text: str) -> tuple[int, int] | None:
    """(height, width) of an option, None where it was left empty; YolomishError for what is no size."""
    return parse_size(text, "--imgsz") if text else None


def split_list(text: str) -> list[str]:
    """The parts of a list by commas, empty ones left out."""
    return [part.strip() for part in text.split(",") if part.strip()]


def required_list(text: str, option: str) -> list[str]:
    """The parts of a list by commas; YolomishError where there are none."""
    if parts := split_list(text):
        return parts
    raise YolomishError(f"{option} names nothing: give one or more, by commas")


def read_data(name: str, fraction: float | None, classes: str, train_share: float | None) -> DataConfig:
    """The data set of a name or YAML with what the options ``Fraction``, ``Classes`` and ``TrainShare`` take of it."""
    config = load_data_config(name)
    given = {"fraction": fraction, "classes": tuple(split_list(classes)) or None, "split": train_share}
    config = replace(config, **{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]
    check_fields(config)
    return config


def task_of(recipe: str, model: str) -> str:
    """The task that a recipe, or by ``cfg`` a model's own cfg, is for."""
    if recipe != "cfg":
        return recipe_task(recipe)
    from yolomish.darknet.cfg import load_cfg
    from yolomish.darknet.recipe import cfg_task
    from yolomish.networks.registry import cfg_file

    cfg = cfg_file(model)
    return cfg_task(load_cfg(cfg)) if cfg else "detect"


def choose_recipe(
    recipe: str,
    model: str,
    structure: ModelConfig,
    data: DataConfig,
    settings: Mapping[str, Any],
    log: Log,
    *,
    details: bool = False,
) -> TrainConfig:
    """The training of ``structure`` on ``data`` by a recipe's name or YAML, or ``cfg``: by the cfg that it is made of.

    A batch that stands on the command line and is no multiple of the recipe's mini-batch is taken at once.

    Of a cfg, ``log`` gets what is not honoured, and with ``details`` what is. The number of training images, and of images
    a step, decide how many epochs its steps make.

    Args:
        recipe: As on the command line.
        model: Likewise.
        structure: The model of that name, whatever has been changed in it.
        data: Where the training images are.
        settings: What stands on the command line and wins over the recipe.
        log: Gets one line at a time.
        details: Whether to say what was taken, too.
    """
    if recipe != "cfg":
        return _with_settings(load_recipe(recipe, structure), data, settings)
    from yolomish.darknet.cfg import load_cfg
    from yolomish.darknet.recipe import cfg_recipe
    from yolomish.data.loader import steps_per_epoch
    from yolomish.networks.registry import cfg_file
    from yolomish.tasks.registry import find_task

    if not (cfg := cfg_file(model)):
        raise YolomishError(f"--recipe cfg takes the training of a Darknet cfg: give --model FILE.cfg, not {model}")
    own = {key: value for key, value in settings.items() if key == "batch"}

    def steps(config: TrainConfig) -> int:
        return steps_per_epoch(len(find_task(config.task).open(data, "train")), replace(config, **own))

    found = cfg_recipe(structure, load_cfg(cfg), steps)
    for line in (*(found.taken if details else ()), *found.notes):
        log(line)
    return _with_settings(found.config, data, settings)


def _with_settings(config: TrainConfig, data: DataConfig, settings: Mapping[str, Any]) -> TrainConfig:
    config = replace(config, data=data, **settings)
    split = "batch" not in settings or "mini_batch" in settings or not config.batch % (config.mini_batch or 1)
    return config if split else replace(config, mini_batch=0)
