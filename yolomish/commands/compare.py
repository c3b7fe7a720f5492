"""``yolomish compare``: the same training with different activations, or runs that are done, and a report of the difference."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yolomish.commands.options import (
    RECIPE_HELP,
    SIZE_HELP,
    Classes,
    Force,
    Fraction,
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
from yolomish.commands.train import RECIPE, SETTINGS, given_settings
from yolomish.errors import YolomishError, shown, unknown_name

if TYPE_CHECKING:
    from yolomish.comparison.train import Trainer
    from yolomish.config import TrainConfig

JOBS = {"jobs", "job_set", "print_jobs"}
TRAINING = {"set_", "acts", "aa", "seeds", "scope", "model", "recipe", "weights", "devices", "lr_grid", "lr_seeds", *JOBS}
TRAINING = (TRAINING | {"until_decided", "max_seeds"} | set(SETTINGS)) - {"device"}
JUDGING = {"margin", "pairs", "cluster", "resolve", "allow_missing", "int8"}
PAIRS = ("first", "all")

PART = {"fraction", "classes", "train_share"}  # of the data


def split_acts(acts: str) -> list[str]:
    """Names separated by commas; YolomishError for fewer than two or one that cannot be built."""
    from yolomish.activations import build_activation

    names = split_list(acts)
    if len(names) < 2:
        raise YolomishError(f"--acts needs at least two names, not {shown(acts)}: --acts mish,leaky_relu")
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
    from yolomish.config import from_dict, parse_yaml, to_dict

    values = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or key in ("model", "data"):
            raise YolomishError(f"--set needs KEY=VALUE of a training setting, not {text!r}: --set mosaic=0")
        values[key] = parse_yaml(value, f"--set {text}")
    return from_dict(type(config), to_dict(config) | values, "--set")


def choose_trainer(jobs: str, settings: Iterable[str], printed: bool, log: Callable[[str], None]) -> Trainer | None:
    """What trains the runs in place of this machine; None: nothing. YolomishError for what does not go together."""
    from yolomish.comparison.jobs import CLUSTERS, Jobs, Printed
    from yolomish.config import parse_yaml
    from yolomish.inference.export.packages import require

    values = {}
    for text in settings:
        key, sign, value = text.partition("=")
        if not sign or not jobs:
            raise YolomishError(f"--job-set needs KEY=VALUE of a job, and --jobs, not {text[:60]!r}: --job-set timeout_min=600")
        values[key] = parse_yaml(value, f"--job-set {text}")
    if printed:
        return Printed()
    if not jobs:
        return None
    if jobs not in CLUSTERS:
        raise unknown_name("--jobs", jobs, CLUSTERS)
    require("submitit")
    return Jobs(cluster=jobs, settings=values, log=log)


def compare(
    ctx: typer.Context,
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="Finished run folders, or COCO result files with --data; [NAME=]PATH. Left out: train the --acts.",
        ),
    ] = None,
    acts: Annotated[
        str,
        typer.Option(
            "--acts",
            help="Two or more activations, separated by commas; the first is held against the others.",
            callback=trust_named,
        ),
    ] = "mish,leaky_relu",
    aa: Annotated[
        bool, typer.Option("--aa", help="Train the first activation twice at different seeds: must show no difference.")
    ] = False,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, max=1000, help="Trainings of each activation, with different seeds.")
    ] = 3,
    until_decided: Annotated[
        bool,
        typer.Option("--until-decided", help="Train seed after seed until AP's differences are decided; errs in 5 % in all."),
    ] = False,
    max_seeds: Annotated[
        int, typer.Option("--max-seeds", min=2, max=1000, help="Where --until-decided ends, declared at the start.")
    ] = 10,
    margin: Annotated[
        float, typer.Option("--margin", help="AP, 0..1: say whether arms are equivalent within it, such as 0.005; 0: do not.")
    ] = 0.0,
    pairs: Annotated[str, typer.Option("--pairs", help="first: every arm against the first; all: all against all.")] = "first",
    cluster: Annotated[
        str,
        typer.Option("--cluster", help="What images are drawn together by: folder, '(.+)_frame' of file names, a COCO key."),
    ] = "",
    resolve: Annotated[
        float, typer.Option("--resolve", help="AP, 0..1: the true difference that plans and 'what next' are made for.")
    ] = 0.01,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Take files although one arm has no detections on many more images.")
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Also what 8 bits leave of each arm's AP, and their speed, by OpenVINO and NNCF.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Train nothing: say how many seeds, images and hours a difference takes.")
    ] = False,
    spread: Annotated[float, typer.Option("--spread", help="For --plan: the deviation of one seed's AP difference, 0..1.")] = 0.0,
    image_error: Annotated[
        float, typer.Option("--image-error", help="For --plan: the images' standard error of the AP difference, 0..1.")
    ] = 0.0,
    hours: Annotated[float, typer.Option("--hours", help="For --plan: hours of one training; 0: as the runs took.")] = 0.0,
    scope: Annotated[
        str,
        typer.Option(
            "--scope",
            help="Where it changes: backbone, neck (with heads), all, numbers of `info` (0-104), a module, an activation, or "
            "leaky_relu=mish: those as they are against mish.",
            callback=trust_named,
        ),
    ] = "backbone",
    trust: Trust = False,
    force: Force = False,
    data: Annotated[
        str, typer.Option("--data", help="Data set: shapes (generated), digits, a YAML, .data, .json or .csv, or a folder.")
    ] = "shapes",
    fraction: Fraction = None,
    classes: Classes = "",
    train_share: TrainShare = None,
    model: Annotated[
        str, typer.Option("--model", help="Shipped model, a YAML or a Darknet .cfg [the recipe's, else yolov4-n]")
    ] = "",
    recipe: Annotated[str, typer.Option("--recipe", help=RECIPE_HELP)] = "small",
    weights: Annotated[
        str, typer.Option("--weights", help="Initial weights: one file, or NAME=FILE per activation, by commas [none]")
    ] = "",
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the training images" + RECIPE)] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Images a step" + RECIPE)] = None,
    imgsz: Annotated[str | None, typer.Option("--imgsz", "--img-size", "--img", metavar="PX", help=SIZE_HELP + RECIPE)] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Peak learning rate of all arms" + RECIPE)] = None,
    lr_grid: Annotated[
        str,
        typer.Option("--lr-grid", help="Peak rates, by commas, of which each arm gets its best on training images held out."),
    ] = "",
    lr_seeds: Annotated[
        int, typer.Option("--lr-seeds", min=1, max=1000, help="Trainings of each rate of --lr-grid, at seeds that do not judge.")
    ] = 2,
    burn_in: Annotated[int | None, typer.Option("--burn-in", help="Steps of warm-up to the peak rate" + RECIPE)] = None,
    eval_every: Annotated[int | None, typer.Option("--eval-every", help="Epochs between evaluations" + RECIPE)] = None,
    amp: Annotated[
        str | None, typer.Option("--amp", help="Mixed precision: off, bf16 (CUDA, CPUs) or fp16 (CUDA)" + RECIPE)
    ] = None,
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
    jobs: Annotated[str, typer.Option("--jobs", help="slurm or local: a job per training, by submitit [trains here]")] = "",
    job_set: Annotated[
        list[str] | None,
        typer.Option("--job-set", metavar="KEY=VALUE", help="A job's setting: timeout_min=600, slurm_partition=gpu; repeatable."),
    ] = None,
    print_jobs: Annotated[
        bool, typer.Option("--print-jobs", help="Train nothing: print a command per training, for any scheduler.")
    ] = False,
    output: Annotated[Path, typer.Option("--output", help="Folder that holds comparisons.")] = Path("runs/compare"),
    name: Annotated[
        str, typer.Option("--name", help="Folder inside --output; a finished run in it is kept [from the options]")
    ] = "",
) -> None:
    """Train one model with different activations, all else equal, or take finished runs, and report the difference."""
    from yolomish.comparison.report import Judging

    given = given_options(ctx)

    def log(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    if pairs not in PAIRS:
        raise unknown_name("--pairs", pairs, PAIRS)
    if "max_seeds" in given and not until_decided:
        raise YolomishError("--max-seeds is where --until-decided ends: add it, or say --seeds")
    if until_decided and "seeds" in given:
        raise YolomishError("--until-decided looks from 3 seeds on, to --max-seeds: leave out --seeds")
    judging = Judging(margin=margin, all_pairs=pairs == "all", cluster=cluster, resolve=resolve, allow_missing=allow_missing)
    if plan:
        from yolomish.comparison.budget import plan_from_runs, plan_from_spreads
        from yolomish.comparison.render.plan import plan_text

        if runs:
            where = output / (name or _folder_name(Path(run.partition("=")[2] or run).stem for run in runs[:4]))
            truth = read_data(data, fraction, classes, train_share) if "data" in given else None
            found = plan_from_runs(runs, where, judging, data=truth, hours=hours, device=device or "auto", log=log)
        else:
            found = plan_from_spreads(len(split_acts(acts)), judging, spread=spread, image_error=image_error, hours=hours)
        typer.echo(plan_text(found))
        return
    if runs:
        if wrong := sorted(given & (TRAINING if "data" in given else TRAINING | PART)):
            raise YolomishError(f"finished runs are taken as they are: leave out {', '.join(map(flag, wrong))}")
        from yolomish.comparison import compare_finished

        folder = output / (name or _folder_name(Path(run.partition("=")[2] or run).stem for run in runs[:4]))
        done = " ".join(["yolomish compare", *map(shlex.quote, runs), *_options(ctx, given & (JUDGING | PART | {"data"}))])
        truth = read_data(data, fraction, classes, train_share) if "data" in given else None
        report = compare_finished(
            runs, folder, data=truth, judging=judging, int8=int8, command=done, device=device or "auto", force=force, log=log
        )
    else:
        from yolomish.config import check_train, recipe_model
        from yolomish.networks import find_model
        from yolomish.networks.scope import split_swap

        if task_of(recipe, model) == "classify":
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
        base = choose_recipe(recipe, model, find_model(model), read_data(data, fraction, classes, train_share), settings, log)
        base = with_values(base, set_ or [])
        check_train(base)
        files = split_weights(weights, names) if weights else {}
        rates = split_rates(lr_grid) if lr_grid else []
        if "lr_seeds" in given and not rates:
            raise YolomishError("--lr-seeds are the trainings of each rate of --lr-grid: add it")
        if rates:
            rates = sorted({*rates, base.peak_lr})
        from yolomish.comparison import compare_activations
        from yolomish.comparison.jobs import Planned
        from yolomish.training.loop import Terminated

        kind = ["aa"] * aa + ["lr-grid"] * bool(rates)
        folder = output / (name or _folder_name([*dict.fromkeys(names), *kind, scope, Path(data).stem]))
        if (jobs or print_jobs) and ("devices" in given or (jobs and print_jobs)):
            raise YolomishError("--jobs, --print-jobs and --devices say where runs train: give one of them")
        trainer = choose_trainer(jobs, job_set or [], print_jobs, log)
        shown = {"acts", "seeds", "scope", "data", "model", "recipe"} | given & ((TRAINING - JOBS) | JUDGING | PART)
        command = " ".join(["yolomish compare", *_options(ctx, shown)])
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
                trainer=trainer,
                lr_grid=rates,
                lr_seeds=lr_seeds,
                most_seeds=max_seeds if until_decided else 0,
                judging=judging,
                int8=int8,
                command=command,
                force=force,
                log=log,
            )
        except Planned as found:
            log(f"{len(found.commands)} runs to train; when they are, the same command prints what is next, or reports")
            typer.echo("\n".join(found.commands))
            return
        except KeyboardInterrupt:
            log("stopped; the same command goes on from there")
            raise typer.Exit(130) from None
        except Terminated:
            log("stopped; the same command goes on from there")
            raise typer.Exit(143) from None
    from yolomish.comparison.render import summary

    typer.echo(summary(report))
    typer.echo(f"wrote {folder / 'report.html'}, report.md, report.tex and report.json")


def _options(ctx: typer.Context, keys: Iterable[str]) -> list[str]:
    """The options of ``keys`` as they were given, for the command that a report states."""
    words = []
    for key in sorted(keys):
        value = ctx.params[key]
        for item in value if isinstance(value, list | tuple) else [value]:
            words.append(flag(key) if item is True else f"{flag(key)} {shlex.quote(str(item))}")
    return words


def _folder_name(parts: Iterable[str]) -> str:
    text = "-".join(parts)
    return "-".join("".join(c if c.isalnum() or c in "_-" else " " for c in text).split())
