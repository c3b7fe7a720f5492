"""``yolomish eval``: COCO's twelve numbers."""

from __future__ import annotations

from typing import Annotated

import typer


def eval_(
    weights: Annotated[str, typer.Option("--weights", help="Our checkpoint (.pt) or Darknet's .weights.")],
    data: Annotated[str, typer.Option("--data", help="Shipped data set (shapes) or a YAML.")] = "shapes",
    cfg: Annotated[str, typer.Option("--cfg", help="Darknet .cfg that belongs to a .weights file; empty = --model.")] = "",
    model: Annotated[str, typer.Option("--model", help="Shipped model or YAML that a .weights file fits.")] = "yolov4",
    split: Annotated[str, typer.Option("--split", help="train or val.")] = "val",
    protocol: Annotated[str, typer.Option("--protocol", help="darknet or letterbox.")] = "darknet",
    imgsz: Annotated[int, typer.Option("--imgsz", help="Network size, px, a multiple of 32; 0 = the weights' own.")] = 0,
    conf: Annotated[float, typer.Option("--conf", help="Lowest score kept, 0..1; -1 = the protocol's.")] = -1,
    iou: Annotated[float, typer.Option("--iou", help="NMS threshold, 0..1; -1 = the protocol's.")] = -1,
    nms: Annotated[str, typer.Option("--nms", help="greedy-diou or iou; empty = the protocol's.")] = "",
    rect: Annotated[bool, typer.Option("--rect/--no-rect", help="Batches of like shape, little padding (letterbox).")] = False,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images a batch.")] = 8,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Processes that decode; 0 = none but this.")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    output: Annotated[str, typer.Option("--output", help="Folder; a number is added if it exists.")] = "runs/eval",
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Evaluate weights as MS-COCO does (pycocotools); writes metrics.json, results.json and pr_curves.png."""
    import dataclasses
    import json
    from pathlib import Path
    from typing import cast

    from yolomish.config import check_image_size, load_data_config
    from yolomish.data.datasets import Split, open_data
    from yolomish.errors import YolomishError, unknown_name
    from yolomish.evaluation.coco import evaluate
    from yolomish.evaluation.plots import plot_precision_recall
    from yolomish.evaluation.predict import predict
    from yolomish.evaluation.protocol import PROTOCOLS
    from yolomish.inference.outputs import free_folder
    from yolomish.ops.device import choose_device
    from yolomish.ops.nms import NMS_KINDS
    from yolomish.training.checkpoint import load_network

    if protocol not in PROTOCOLS:
        raise unknown_name("protocol", protocol, PROTOCOLS)
    if rect and PROTOCOLS[protocol].resize != "letterbox":
        raise YolomishError(f"--rect pads less than a square, protocol {protocol} stretches to one: use --protocol letterbox")
    if split not in ("train", "val"):
        raise unknown_name("split", split, ("train", "val"))
    chosen = PROTOCOLS[protocol]
    if nms and nms not in NMS_KINDS:
        raise unknown_name("NMS kind", nms, NMS_KINDS)
    changed = {k: v for k, v in (("conf", conf), ("iou", iou), ("nms", nms), ("rect", rect)) if v not in (-1, "", False)}
    if changed:
        chosen = dataclasses.replace(chosen, name=f"{protocol}, changed", **changed)  # type: ignore[arg-type]
    network = load_network(weights, cfg=cfg, model=model)
    source = open_data(load_data_config(data), cast(Split, split))
    if len(source.names) != len(network.names):
        raise YolomishError(f"{weights} has {len(network.names)} classes, the data {len(source.names)}: wrong weights or data?")
    size = imgsz or network.image_size
    check_image_size(size)
    typer.echo(chosen.describe(len(source), f"{split} ({source.source.name})", size), err=as_json)
    if weights.endswith(".weights") and "val2017" in source.source.name:
        typer.echo(
            "warning: the official yolov4.weights were trained on images of val2017 (Darknet's trainvalno5k list): "
            "this AP checks parity, not quality",
            err=True,
        )
    if network.resize != chosen.resize:
        typer.echo(f"note: these weights were trained with {network.resize}, the protocol resizes by {chosen.resize}", err=True)
    results = predict(
        network.model,
        source,
        image_size=size,
        resize=chosen.resize,
        conf=chosen.conf,
        iou=chosen.iou,
        nms=chosen.nms,
        batch=batch,
        device=choose_device(device),
        max_det=chosen.max_det,
        rect=chosen.rect,
        workers=workers,
        progress=True,
    )
    truth = source.coco()
    metrics = evaluate(truth, results, source.names, source.category_ids)
    folder = free_folder(Path(output))
    content = {"protocol": dataclasses.asdict(chosen), "image_size": size, "images": len(source), **dataclasses.asdict(metrics)}
    (folder / "metrics.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    plot_precision_recall(truth, results, source.names, folder / "pr_curves.png")
    if as_json:
        typer.echo(json.dumps(content))
    else:
        for key, value in dataclasses.asdict(metrics).items():
            if key != "per_class_ap":
                typer.echo(f"{key:10} {value:7.4f}")
        for name, value in metrics.per_class_ap.items():
            typer.echo(f"AP {name:20} {value:7.4f}")
    typer.echo(f"wrote {folder}", err=as_json)
