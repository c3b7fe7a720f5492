"""``yolomish data``: fetch a data set, look for what is wrong with it, look at it, choose anchors, convert it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from yolomish.commands.convert import convert
from yolomish.commands.help import command
from yolomish.commands.options import RECIPE_HELP, SIZE_HELP, Classes, Fraction, MaxPixels, TrainShare, read_data, split_list

data_app = typer.Typer(no_args_is_help=True, help="Fetch, check, draw and convert data sets; choose anchors.")
command(data_app, "convert", "yolomish data convert my.yaml coco-format --to coco")(convert)
SHOWN = 5
Data = Annotated[str, typer.Argument(help="Data set: shapes (generated), a YAML, .data, .json or .csv, or a folder.")]
Size = Annotated[str, typer.Option("--imgsz", "--img-size", "--img", metavar="PX", help=SIZE_HELP + ".")]
OwnSize = Annotated[
    str, typer.Option("--imgsz", "--img-size", "--img", metavar="PX", help=f"{SIZE_HELP} [the model's or recipe's]")
]
ResizeBy = Annotated[str, typer.Option("--resize", help="stretch or letterbox, as in training.")]


@command(data_app, "check", "yolomish data check my.yaml", "yolomish data check my.yaml --strict --json > findings.json")
def check(
    data: Data,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail too.")] = False,
    fast: Annotated[bool, typer.Option("--fast", help="Read images' headers alone: no broken, equal or like pictures.")] = False,
    only: Annotated[str, typer.Option("--only", help="Ids of the checks to report, by commas [all]")] = "",
    show_all: Annotated[bool, typer.Option("--all", help=f"Print every finding, not {SHOWN} of each kind.")] = False,
    fraction: Fraction = None,
    classes: Classes = "",
    train_share: TrainShare = None,
    imgsz: Size = "416",
    resize: ResizeBy = "stretch",
    max_pixels: MaxPixels = 0,
    workers: Annotated[int, typer.Option("--workers", min=1, max=256, help="Threads that read images.")] = 4,
    output: Annotated[
        str, typer.Option("--output", help="Folder of report.html and report.json; a number is added if it exists; empty = none")
    ] = "runs/check",
    as_json: Annotated[bool, typer.Option("--json", help="Print all findings as JSON.")] = False,
) -> None:
    """Find what is wrong with a data set. Exit code 1 where there are errors (with --strict: or warnings)."""
    import json

    from yolomish.config import parse_size
    from yolomish.data.check import CHECKS, by_check, counts, examine
    from yolomish.data.report import as_values, to_html
    from yolomish.errors import unknown_name
    from yolomish.files import free_folder, write_json, write_text

    wanted = split_list(only)
    for name in wanted:
        if name not in CHECKS:
            raise unknown_name("check", name, CHECKS)
    size_hw, letterbox = parse_size(imgsz, "--imgsz"), keeps_aspect(resize)
    config = read_data(data, fraction, classes, train_share)
    examination = examine(config, fast=fast, workers=workers, size_hw=size_hw, keep_aspect=letterbox)
    findings = [f for f in examination.findings if not wanted or f.check in wanted]
    numbers, values = counts(findings), as_values(examination, findings)
    if as_json:
        typer.echo(json.dumps(values))
    else:
        for name, group in by_check(findings).items():
            typer.echo(f"{CHECKS[name]:8} {name}: {len(group)}")
            for finding in group if show_all else group[:SHOWN]:
                typer.echo(f"         {finding.split}: {finding.message}")
            if len(group) > SHOWN and not show_all:
                typer.echo(f"         ... and {len(group) - SHOWN} more (--all)")
        typer.echo(f"{data}: {numbers['error']} errors, {numbers['warning']} warnings, {numbers['info']} notes")
    if output:
        folder = free_folder(output)
        write_text(folder / "report.html", to_html(data, examination, findings, network=f"{resize} to {imgsz}"))
        write_json(folder / "report.json", values)
        typer.echo(f"wrote {folder}: report.html, report.json", err=as_json)
    if numbers["error"] or (strict and numbers["warning"]):
        raise typer.Exit(1)


@command(data_app, "show", "yolomish data show my.yaml", "yolomish data show my.yaml --recipe darknet --batches 4")
def show(
    data: Data,
    recipe: Annotated[str, typer.Option("--recipe", help=RECIPE_HELP)] = "scaled",
    model: Annotated[str, typer.Option("--model", help="Shipped model, YAML or .cfg [the recipe's, else yolov4]")] = "",
    fraction: Fraction = None,
    classes: Classes = "",
    train_share: TrainShare = None,
    split: Annotated[str, typer.Option("--of", help="Split of the samples: train, val or test.")] = "train",
    number: Annotated[
        int, typer.Option("-n", "--number", min=1, max=10_000, help="Samples in the grid, and images of a batch.")
    ] = 16,
    batches: Annotated[int, typer.Option("--batches", min=0, max=10_000, help="Augmented batches to draw.")] = 2,
    epoch: Annotated[int, typer.Option("--epoch", min=1, max=1_000_000, help="Epoch whose batches are drawn, from 1.")] = 1,
    imgsz: OwnSize = "",
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of order and augmentation [the recipe's]")] = None,
    output: Annotated[str, typer.Option("--output", help="Folder; a number is added if it exists.")] = "runs/show",
) -> None:
    """Draw samples as they are, and training batches as the network gets them under a recipe."""
    from functools import partial
    from typing import cast

    from yolomish.commands.options import choose_recipe, read_size
    from yolomish.config import check_train, recipe_model
    from yolomish.data.datasets import open_data
    from yolomish.data.formats.record import SPLITS, Split
    from yolomish.data.show import draw_samples, training_batches
    from yolomish.drawing.boxes import draw_batch
    from yolomish.errors import unknown_name
    from yolomish.files import free_folder
    from yolomish.networks import find_model
    from yolomish.networks.registry import outline

    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    given = {"image_size": read_size(imgsz), "seed": seed}
    settings = {key: value for key, value in given.items() if value is not None}
    model = model or recipe_model(recipe) or "yolov4"
    source = read_data(data, fraction, classes, train_share)
    config = choose_recipe(recipe, model, find_model(model), source, settings, partial(typer.echo, err=True))
    check_train(config)
    network = outline(config.model)
    network.resized(config.image_size, config.resize)
    folder = free_folder(output)
    written = ["samples.png"]
    draw_samples(open_data(source, cast(Split, split)), folder / written[0], number, size_hw=config.image_size)
    train = open_data(source, "train")
    for i, batch in enumerate(training_batches(train, config, network.input, epoch=epoch - 1, count=batches), 1):
        written.append(f"batch-{i}.png")
        draw_batch(batch, train.names, folder / written[-1], most=number)
    typer.echo(f"wrote {folder}: {', '.join(written)}")


@command(data_app, "get", "yolomish data get", "yolomish data get coco128")
def get(
    names: Annotated[list[str] | None, typer.Argument(help="Names of published data sets; left out: list them")] = None,
    output: Annotated[Path, typer.Option("--output", help="Folder of data sets.")] = Path("datasets"),
    keep: Annotated[bool, typer.Option("--keep", help="Keep the archives once they are unpacked.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """Fetch published data sets, check and unpack them, and write their YAMLs; what was interrupted goes on."""
    import json

    from yolomish.data.get import PUBLISHED, get_data

    for name in names or ():
        typer.echo(str(get_data(name, output, keep=keep)))
    if names:
        return
    if as_json:
        typer.echo(json.dumps([{"name": name, "bytes": data.size, "about": data.about} for name, data in PUBLISHED.items()]))
        return
    for name, data in PUBLISHED.items():
        typer.echo(f"{name:10} {f'{data.size / 1e9:.2f} GB' if data.size else 'small':>8}  {data.about}")


@command(data_app, "anchors", "yolomish data anchors my.yaml --imgsz 416 --model yolov4-tiny")
def anchors(
    data: Data,
    number: Annotated[
        int, typer.Option("-n", "--number", min=0, max=10_000, help="Anchors in all; 0 = as many as the model's heads have.")
    ] = 0,
    fraction: Fraction = None,
    classes: Classes = "",
    train_share: TrainShare = None,
    imgsz: OwnSize = "",
    resize: ResizeBy = "stretch",
    model: Annotated[str, typer.Option("--model", help="Model whose heads they are for: shipped, a YAML or a .cfg.")] = "yolov4",
    generations: Annotated[
        int, typer.Option("--generations", min=0, max=1_000_000, help="Genetic refinement of k-means; 0 = none.")
    ] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of starts and mutations.")] = 0,
) -> None:
    """Anchors for the training boxes: k-means by IoU, then genetic refinement; for a model's YAML and for a cfg."""
    from yolomish.commands.options import read_size
    from yolomish.data.anchors import choose_anchors, share_out
    from yolomish.data.datasets import open_data
    from yolomish.networks import find_model
    from yolomish.networks.registry import outline
    from yolomish.types import size_text

    network = outline(find_model(model))
    size_hw = read_size(imgsz) or network.input.size_hw
    labels, sizes = open_data(read_data(data, fraction, classes, train_share), "train").boxes_at(
        size_hw, keep_aspect=keeps_aspect(resize)
    )
    chosen = choose_anchors(sizes, network.heads, number, generations=generations, seed=seed)
    typer.echo(f"# {len(labels)} boxes of {data} at {size_text(size_hw)} px, {resize}")
    for what, fit in ((f"{model}'s own", chosen.own), ("k-means", chosen.kmeans), ("refined", chosen.refined)):
        typer.echo(
            f"# {what}: {len(fit.anchors)} anchors, best possible recall {fit.recall:.4f} (ratio under 4), "
            f"mean IoU with the best {fit.mean_iou:.4f}"
        )
    values = [(round(float(w)), round(float(h))) for w, h in chosen.refined.anchors]
    typer.echo("anchors: [" + ", ".join(f"[{w}, {h}]" for w, h in values) + "]")
    typer.echo("# as a cfg")
    for head, mask in share_out(network.heads, len(values)):
        typer.echo(f"# [yolo] at stride {head.stride}: mask = {','.join(map(str, mask))}")
    typer.echo("# anchors = " + ",  ".join(f"{w},{h}" for w, h in values))


def keeps_aspect(resize: str) -> bool:
    """Whether a resize scales both axes alike; YolomishError for one that is unknown."""
    from yolomish.errors import unknown_name

    if resize not in ("stretch", "letterbox"):
        raise unknown_name("resize", resize, ("stretch", "letterbox"))
    return resize == "letterbox"
