"""``yolomish swap``: another activation in a trained network."""

from __future__ import annotations

from typing import Annotated

import typer

from yolomish.commands.options import Device, split_list


def swap(
    weights: Annotated[str, typer.Argument(metavar="WEIGHTS", help="Our .pt, Darknet's .weights, or a name (yolov4-tiny).")],
    to: Annotated[str, typer.Option("--to", help="The activation to put in: a name or FILE.py:NAME.")],
    data: Annotated[str, typer.Option("--data", help="Data set: training images for the batch norms, val for AP.")],
    scope: Annotated[str, typer.Option("--scope", help="Where: all, a part, an activation, section numbers, a module.")] = "all",
    cfg: Annotated[str, typer.Option("--cfg", help="Darknet .cfg that belongs to a .weights file [--model]")] = "",
    model: Annotated[str, typer.Option("--model", help="Shipped model or YAML that a .weights file fits [by itself]")] = "",
    images: Annotated[
        int, typer.Option("--images", min=1, max=1_000_000, help="Most training images for the batch norms.")
    ] = 1000,
    batch: Annotated[int, typer.Option("--batch", min=2, max=65_536, help="Images at once.")] = 8,
    epochs: Annotated[
        int, typer.Option("--epochs", min=0, max=1_000_000, help="Epochs of training after the swap; 0 = none.")
    ] = 0,
    anneal: Annotated[
        int, typer.Option("--anneal", min=0, max=1_000_000, help="First epochs that pass from the old to the new.")
    ] = 0,
    distil: Annotated[bool, typer.Option("--distil", help="Learn the original network's raw maps instead of labels.")] = False,
    lr: Annotated[float, typer.Option("--lr", min=0, max=10, help="AdamW's peak learning rate.")] = 1e-4,
    recipe: Annotated[str, typer.Option("--recipe", help="Loss and augmentation of the training, without mosaic.")] = "darknet",
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of order and augmentation.")] = 0,
    bench: Annotated[
        str, typer.Option("--bench", help="Also time both networks in these engines, by commas, such as torch,openvino.")
    ] = "",
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=10_000, help="Rounds of --bench.")] = 9,
    device: Device = "auto",
    output: Annotated[str, typer.Option("--output", help="Folder; a number is added if it exists.")] = "runs/swap",
    as_json: Annotated[bool, typer.Option("--json", help="Print the stages as JSON.")] = False,
) -> None:
    """Put another activation into trained weights, re-estimate the batch norms, and say what each step does to AP."""
    import json
    from functools import partial

    from yolomish.config import load_data_config
    from yolomish.files import free_folder, write_json
    from yolomish.transfer import TransferOptions, transfer
    from yolomish.transfer.report import as_table, timings, to_dict
    from yolomish.weights.checkpoint import save_checkpoint
    from yolomish.weights.load import load_network

    log = partial(typer.echo, err=True)
    loaded = load_network(weights, cfg=cfg, model=model)
    options = TransferOptions(
        to=to,
        scope=scope,
        images=images,
        batch=batch,
        epochs=epochs,
        anneal=anneal,
        distil=distil,
        peak_lr=lr,
        recipe=recipe,
        device=device,
        seed=seed,
    )
    done = transfer(loaded, load_data_config(data), options, log=log)
    times = timings(loaded, done.loaded, split_list(bench), rounds, log) if bench else ()
    folder = free_folder(output)
    save_checkpoint(folder / "swapped.pt", config=done.config, model=done.loaded.network, names=done.loaded.names)
    content = to_dict(done, times, weights, options)
    write_json(folder / "swap.json", content)
    typer.echo(json.dumps(content) if as_json else "\n".join(as_table(done, times)))
    typer.echo(f"wrote {folder}: swapped.pt (after the last step), swap.json", err=as_json)
