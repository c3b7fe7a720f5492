"""``yolomish compare``: the same training with different activations, and a report of what it made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


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
    acts: Annotated[
        str, typer.Option("--acts", help="Two or more activations, separated by commas; a repeated one makes an A/A test.")
    ] = "mish,leaky_relu",
    seeds: Annotated[int, typer.Option("--seeds", help="Trainings of each activation, with different seeds.")] = 2,
    scope: Annotated[
        str, typer.Option("--scope", help="Where the activation changes: backbone, neck (with heads) or all.")
    ] = "backbone",
    data: Annotated[str, typer.Option("--data", help="Built-in data set (shapes) or a data YAML.")] = "shapes",
    model: Annotated[str, typer.Option("--model", help="Shipped model (yolov4, yolov4-s, yolov4-n) or a YAML.")] = "yolov4-n",
    epochs: Annotated[int, typer.Option("--epochs", help="Passes over the training images.")] = 30,
    batch: Annotated[int, typer.Option("--batch", help="Images a step.")] = 16,
    imgsz: Annotated[int, typer.Option("--imgsz", help="Network size in px, a multiple of 32.")] = 160,
    lr: Annotated[float, typer.Option("--lr", help="Peak learning rate.")] = 0.01,
    burn_in: Annotated[int, typer.Option("--burn-in", help="Steps of warm-up to the peak learning rate.")] = 100,
    seed: Annotated[int, typer.Option("--seed", help="The first seed; the others count up from it.")] = 0,
    workers: Annotated[int, typer.Option("--workers", help="Processes that load images; 0 = none.")] = 2,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda[:N].")] = "auto",
    output: Annotated[Path, typer.Option("--output", help="Folder that holds comparisons.")] = Path("runs/compare"),
    name: Annotated[
        str, typer.Option("--name", help="Folder inside --output; a finished run in it is kept. Empty = from the options.")
    ] = "",
) -> None:
    """Train the same model with different activations, everything else equal, and report the difference."""
    import shlex

    from yolomish.config import TrainConfig, check_train, load_data_config, load_model_config

    names = split_acts(acts)
    base = TrainConfig(
        model=load_model_config(model),
        data=load_data_config(data),
        image_size=imgsz,
        epochs=epochs,
        batch=batch,
        peak_lr=lr,
        burn_in=burn_in,
        seed=seed,
        workers=workers,
        device=device,
    )
    check_train(base)
    from yolomish.comparison.run import compare as run

    words = "".join(c if c.isalnum() or c in "_-" else " " for c in "-".join([*names, scope, Path(data).stem])).split()
    folder = output / (name or "-".join(words))
    command = f"yolomish compare --acts {shlex.quote(acts)} --seeds {seeds} --scope {scope} --data {shlex.quote(data)}"
    command += f" --model {shlex.quote(model)} --epochs {epochs} --batch {batch} --imgsz {imgsz} --lr {lr}"
    command += f" --burn-in {burn_in} --seed {seed} --workers {workers} --device {device}"
    page = run(base, names, seeds, folder, scope=scope, command=command, log=lambda text: print(text, file=sys.stderr))
    typer.echo(page.with_suffix(".md").read_text(encoding="utf-8").split("\n## Paired")[0].strip())
    typer.echo(f"wrote {page}")
