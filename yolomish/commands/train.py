"""``yolomish train``: one run from options or from the folder of an interrupted one."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from yolomish.config import TrainConfig, check_train, from_dict, load_data_config, load_model_config, load_yaml
from yolomish.errors import YolomishError

DEFAULT = TrainConfig()
WITH_RESUME = {"resume", "epochs", "workers", "device", "dry_run"}


def train(
    ctx: typer.Context,
    act: Annotated[str, typer.Option(help="Backbone activation: a registered name or FILE.py:NAME.")] = "mish",
    neck_act: Annotated[str, typer.Option(help="Activation of neck and heads.")] = "leaky_relu",
    model: Annotated[str, typer.Option(help="Model: yolov4, yolov4-s, yolov4-n or a YAML.")] = "yolov4",
    data: Annotated[str, typer.Option(help="Data set: shapes (generated) or a YAML.")] = "shapes",
    weights: Annotated[str, typer.Option(help="Initial weights, .pt or Darknet .weights; empty: from scratch.")] = "",
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = DEFAULT.epochs,
    batch: Annotated[int, typer.Option(help="Images a step.")] = DEFAULT.batch,
    imgsz: Annotated[int, typer.Option(help="Network size in pixels, a multiple of 32.")] = DEFAULT.image_size,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = DEFAULT.peak_lr,
    burn_in: Annotated[int, typer.Option(help="Burn-in in steps, at most a fifth of the run.")] = DEFAULT.burn_in,
    mosaic: Annotated[float, typer.Option(help="Share of mosaic images, 0 to 1.")] = DEFAULT.mosaic,
    jitter: Annotated[float, typer.Option(help="Crop and scale jitter, a share of the size.")] = DEFAULT.jitter,
    flip: Annotated[float, typer.Option(help="Probability of a left-right flip, 0 to 1.")] = DEFAULT.flip,
    close_mosaic: Annotated[int, typer.Option(help="Last epochs without mosaic.")] = DEFAULT.close_mosaic,
    resize: Annotated[str, typer.Option(help="stretch or letterbox.")] = DEFAULT.resize,
    amp: Annotated[str, typer.Option(help="Mixed precision on CUDA: off, bf16 or fp16.")] = DEFAULT.amp,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = DEFAULT.device,
    workers: Annotated[int, typer.Option(help="Loader processes; does not change the result.")] = DEFAULT.workers,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and augmentation.")] = DEFAULT.seed,
    eval_every: Annotated[int, typer.Option(help="Epochs between evaluations.")] = DEFAULT.eval_every,
    ema: Annotated[bool, typer.Option("--ema/--no-ema", help="Average the weights and evaluate those.")] = DEFAULT.ema,
    name: Annotated[str, typer.Option(help="Name of the run's folder; empty: MODEL-ACT.")] = "",
    output: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs/train"),
    resume: Annotated[str, typer.Option(help="Run folder or its last.pt to go on with; empty: a new run.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check settings, data and one batch; write nothing.")] = False,
) -> None:
    """Train one detector and evaluate it with COCO's metrics."""
    log = partial(typer.echo, err=True)
    if resume:
        given = {k for k in ctx.params if getattr(ctx.get_parameter_source(k), "name", "") == "COMMANDLINE"}
        if wrong := sorted(given - WITH_RESUME):
            raise YolomishError(f"--resume keeps the run's settings: leave out --{', --'.join(wrong).replace('_', '-')}")
        folder = Path(resume).parent if Path(resume).suffix == ".pt" else Path(resume)
        config = from_dict(TrainConfig, load_yaml(folder / "config.yaml"), str(folder / "config.yaml"))
        changes: dict[str, Any] = {"epochs": epochs, "workers": workers, "device": device}
        config = replace(config, **{k: v for k, v in changes.items() if k in given})
    else:
        config = TrainConfig(
            model=replace(load_model_config(model), activation=act, neck_activation=neck_act),
            data=load_data_config(data),
            image_size=imgsz,
            epochs=epochs,
            batch=batch,
            peak_lr=lr,
            burn_in=burn_in,
            mosaic=mosaic,
            jitter=jitter,
            flip=flip,
            close_mosaic=close_mosaic,
            resize=resize,
            ema=ema,
            amp=amp,
            device=device,
            workers=workers,
            seed=seed,
            eval_every=eval_every,
        )
        folder = free_folder(output, name or f"{Path(model).stem}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', Path(act).name)}")
    check_train(config)

    from yolomish.training.fit import fit, try_out  # torch is slow to import

    if dry_run:
        try_out(config, initial_weights=weights, log=log)
        typer.echo("dry run: settings, data and one batch are fine; nothing written")
        return
    try:
        result = fit(config, folder, initial_weights=weights, resume=bool(resume), log=log)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    metrics = result.metrics
    typer.echo(f"AP {metrics.ap:.4f}  AP50 {metrics.ap50:.4f}  AP75 {metrics.ap75:.4f}  {result.step_ms:.1f} ms/step")
    typer.echo(f"wrote {folder}: best.pt, last.pt, results.csv, curves.png, config.yaml")


def free_folder(parent: Path, name: str) -> Path:
    """``parent/name``, or ``name-2``, ``name-3``... where that exists: a run is never overwritten."""
    folder, number = parent / name, 1
    while folder.exists():
        number += 1
        folder = parent / f"{name}-{number}"
    return folder
