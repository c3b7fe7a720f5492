"""``yolomish compare``: the same training with different activations, or runs that are done, and a report of the difference."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yolomish.commands.options import RECIPE_HELP, SIZE_HELP, choose_recipe, flag, given_options, split_list
from yolomish.commands.train import RECIPE, SETTINGS, given_settings
from yolomish.errors import YolomishError

if TYPE_CHECKING:
    from yolomish.config import TrainConfig

TRAINING = {"set_", "acts", "aa", "seeds", "scope", "model", "recipe", "weights", "devices", "lr_grid", *SETTINGS} - {"device"}


def split_acts(acts: str) -> list[str]:
    """Names separated by commas; YolomishError for fewer than two or one that cannot be built."""
    from yolomish.activations import build_activation

    names = split_list(acts)
    if len(names) < 2:
        raise YolomishError(f"--acts needs at least two names, not {acts!r}: --acts mish,leaky_relu")
    for name in names:
        build_activation(name)
    return names


def split_weights(weights: str, acts: list[str]) -> dict[str, str]:
    """``FILE`` for all activations, or ``NAME=FILE,NAME=FILE``; YolomishError where a file or an activation is missing."""
    parts = split_list(weights)
    if len(parts) == 1 and "=" not in parts[0]:
        found = dict.fromkeys(acts, parts[0])
    else:
        found = {name: path for name, _, path in (part.partition("=") for part in parts)}
        if missing := [act for act in dict.fromkeys(acts) if not found.get(act)]:
            raise YolomishError(f"--weights names no file for {', '.join(missing)}: NAME=FILE for each, or one FILE for all")
    for path in found.values():
        if not Path(path).is_file():
            raise YolomishError(f"no such weights file: {path}")
    return found


def split_rates(rates: str) -> list[float]:
    """Learning rates separated by commas; YolomishError for one that is none."""
    try:
        found = [float(rate) for rate in split_list(rates)]
    except ValueError:
        raise YolomishError(f"--lr-grid must be numbers separated by commas, not {rates!r}: 0.005,0.01,0.02") from None
    if any(not rate > 0 for rate in found):
        raise YolomishError(f"--lr-grid must hold positive rates, not {rates!r}")
    return sorted(set(found))


def with_values(config: TrainConfig, texts: Iterable[str]) -> TrainConfig:
    """``config`` with ``KEY=VALUE`` settings, values read as YAML; YolomishError for an unknown key or a wrong type."""
    import yaml

    from yolomish.config import from_dict, to_dict

    values = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or key in ("model", "data"):
            raise YolomishError(f"--set needs KEY=VALUE of a training setting, not {text!r}: --set mosaic=0")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise YolomishError(f"--set {text!r}: the value cannot be read") from None
    return from_dict(type(config), to_dict(config) | values, "--set")


def compare(
    ctx: typer.Context,
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN...]",
            help="Finished run folders, or COCO result files with --data; [NAME=]PATH. Left out: train the --acts.",
        ),
    ] = None,
    acts: Annotated[
        str, typer.Option("--acts", help="Two or more activations, separated by commas; the first is held against the others.")
    ] = "mish,leaky_relu",
    aa: Annotated[
        bool, typer.Option("--aa", help="Train the first activation twice at different seeds: must show no difference.")
    ] = False,
    seeds: Annotated[int, typer.Option("--seeds", help="Trainings of each activation, with different seeds.")] = 2,
    scope: Annotated[
        str,
        typer.Option(
            "--scope",
            help="Where the activation changes: backbone, neck (with heads), all, numbers of `info` (0-104), a module, an "
            "activation (leaky_relu), or leaky_relu=mish: those as they are against mish there.",
        ),
    ] = "backbone",
    data: Annotated[str, typer.Option("--data", help="Data set: shapes, digits, a YAML, or a folder of classes.")] = "shapes",
    model: Annotated[
        str, typer.Option("--model", help="Shipped model, a YAML or a Darknet .cfg; empty = the recipe's, else yolov4-n.")
    ] = "",
    recipe: Annotated[str, typer.Option("--recipe", help=RECIPE_HELP)] = "small",
    weights: Annotated[
        str, typer.Option("--weights", help="Initial weights: one file, or NAME=FILE per activation, by commas; empty: none.")
    ] = "",
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the training images" + RECIPE)] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Images a step" + RECIPE)] = None,
    imgsz: Annotated[str | None, typer.Option("--imgsz", "--img-size", "--img", metavar="PX", help=SIZE_HELP + RECIPE)] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Peak learning rate of all arms" + RECIPE)] = None,
    lr_grid: Annotated[
        str, typer.Option("--lr-grid", help="Peak rates, by commas, to try for each arm: a second comparison at its best.")
    ] = "",
    burn_in: Annotated[int | None, typer.Option("--burn-in", help="Steps of warm-up to the peak rate" + RECIPE)] = None,
    eval_every: Annotated[int | None, typer.Option("--eval-every", help="Epochs between evaluations" + RECIPE)] = None,
    amp: Annotated[str | None, typer.Option("--amp", help="Mixed precision on CUDA: off, bf16 or fp16" + RECIPE)] = None,
    kernels: Annotated[
        str | None, typer.Option("--kernels", help="Batch norm + activation: auto, eager, fused or compile" + RECIPE)
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", help="normal, or lean: activations are computed again in backward" + RECIPE)
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="The first seed; the others count up from it" + RECIPE)] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Processes that load images; 0: none" + RECIPE)] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other training setting of all arms, such as mosaic=0; repeatable."),
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda:N" + RECIPE)] = None,
    devices: Annotated[
        str, typer.Option("--devices", help="Several devices, such as cuda:0,cuda:1: arms train at once, one per device.")
    ] = "",
    output: Annotated[Path, typer.Option("--output", help="Folder that holds comparisons.")] = Path("runs/compare"),
    name: Annotated[
        str, typer.Option("--name", help="Folder inside --output; a finished run in it is kept. Empty = from the options.")
    ] = "",
) -> None:
    """Train one model with different activations, all else equal, or take finished runs, and report the difference."""
    from yolomish.config import load_data_config

    given = given_options(ctx)

    def log(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    if runs:
        if wrong := sorted(given & TRAINING):
            raise YolomishError(f"finished runs are taken as they are: leave out {', '.join(map(flag, wrong))}")
        from yolomish.comparison import compare_finished

        folder = output / (name or _folder_name(Path(run.partition("=")[2] or run).stem for run in runs[:4]))
        words = [*runs, *(["--data", data] if "data" in given else [])]
        done = "yolomish compare " + " ".join(map(shlex.quote, words))
        truth = load_data_config(data) if "data" in given else None
        report = compare_finished(runs, folder, data=truth, command=done, device=device or "auto", log=log)
    else:
        from yolomish.config import check_train, recipe_model, recipe_task
        from yolomish.networks import find_model
        from yolomish.networks.scope import split_swap

        if recipe_task(recipe) == "classify":
            scope = scope if "scope" in given else "all"
            data = data if "data" in given else "digits"
            ctx.params.update(scope=scope, data=data)
        if "=" in scope:  # as it is against another
            scope, other = split_swap(scope)
            acts = acts if "acts" in given else f"{scope},{other}"
            ctx.params.update(acts=acts, scope=scope)  # for the command that the report states
        names = split_acts(",".join(2 * split_list(acts)[:1]) if aa else acts)
        settings = given_settings(ctx)
        model = ctx.params["model"] = model or recipe_model(recipe) or "yolov4-n"
        base = choose_recipe(recipe, model, find_model(model), load_data_config(data), settings, log)
        base = with_values(base, set_ or [])
        check_train(base)
        files = split_weights(weights, names) if weights else {}
        rates = split_rates(lr_grid) if lr_grid else []
        if rates:
            rates = sorted({*rates, base.peak_lr})
        from yolomish.comparison import compare_activations
        from yolomish.training.loop import Terminated

        kind = ["aa"] if aa else []
        folder = output / (name or _folder_name([*dict.fromkeys(names), *kind, scope, Path(data).stem]))
        shown = {"acts", "seeds", "scope", "data", "model", "recipe"} | given & TRAINING
        command = ["yolomish compare"]
        for key in sorted(shown):
            value = ctx.params[key]
            for item in value if isinstance(value, list | tuple) else [value]:
                command += [flag(key)] if item is True else [f"{flag(key)} {shlex.quote(str(item))}"]
        try:
            report = compare_activations(
                base,
                names,
                seeds,
                folder,
                scope=scope,
                weights=files,
                other_seeds=aa,
                devices=split_list(devices),
                lr_grid=rates,
                command=" ".join(command),
                log=log,
            )
        except KeyboardInterrupt:
            log("stopped; the same command goes on from there")
            raise typer.Exit(130) from None
        except Terminated:
            log("stopped; the same command goes on from there")
            raise typer.Exit(143) from None
    from yolomish.comparison.render import summary

    typer.echo(summary(report))
    typer.echo(f"wrote {folder / 'report.html'}, report.md, report.tex and report.json")


def _folder_name(parts: Iterable[str]) -> str:
    text = "-".join(parts)
    return "-".join("".join(c if c.isalnum() or c in "_-" else " " for c in text).split())
