"""``yolomish eval``: COCO's twelve numbers, or a classifier's accuracy."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from yolomish.commands.options import (
    NMS_HELP,
    TRAIN_SHARE_HELP,
    Classes,
    Device,
    Fraction,
    ImageSize,
    MaxPixels,
    Swap,
    Trust,
    flag,
    given_options,
    read_data,
    read_size,
)
from yolomish.errors import YolomishError

OF_DETECTORS = {"conf", "iou", "nms", "max_det", "rect", "tta", "backend", "name", "engine", "half", "compile"}
CLASS_METRICS = ("top1", "top5", "nll", "ece")


def eval_(
    ctx: typer.Context,
    weights: Annotated[str, typer.Option("--weights", help="Our .pt, Darknet's .weights, or a name (yolov4-tiny, demo).")],
    data: Annotated[
        str, typer.Option("--data", help="Data set: shapes (generated), digits, a YAML, .data, .json or .csv, or a folder.")
    ] = "shapes",
    cfg: Annotated[str, typer.Option("--cfg", help="Darknet .cfg that belongs to a .weights file [--model]")] = "",
    model: Annotated[str, typer.Option("--model", help="Shipped model or YAML that a .weights file fits [by itself]")] = "",
    swap: Swap = None,
    trust: Trust = False,
    split: Annotated[str, typer.Option("--split", help="train, val or test; test may have no labels: a submission.")] = "val",
    fraction: Fraction = None,
    classes: Classes = "",
    train_share: Annotated[float | None, typer.Option("--train-share", metavar="SHARE", help=TRAIN_SHARE_HELP)] = None,
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol",
            help="darknet, darknet-test (each also -letterbox), letterbox, scaled-yolov4, ultralytics; of a classifier: darknet, "
            "torchvision, whole [darknet, a classifier's as it was trained]",
        ),
    ] = "",
    imgsz: ImageSize = "",
    conf: Annotated[float | None, typer.Option("--conf", help="Lowest score kept, 0..1 [the protocol's]")] = None,
    iou: Annotated[float | None, typer.Option("--iou", help="NMS threshold, 0..1 [the protocol's]")] = None,
    nms: Annotated[str | None, typer.Option("--nms", help=NMS_HELP)] = None,
    max_det: Annotated[
        int | None,
        typer.Option("--max-det", min=0, max=1_000_000, help="Most detections per image, 0 = no limit [the protocol's]"),
    ] = None,
    rect: Annotated[
        bool | None, typer.Option("--rect/--no-rect", help="Batches of like shape, little padding [the protocol's]")
    ] = None,
    tta: Annotated[str, typer.Option("--tta", help="Test-time views: off, flip, multi-scale or all.")] = "off",
    backend: Annotated[
        str, typer.Option("--backend", help="pycocotools, or faster or hotcoco where installed: the same numbers.")
    ] = "pycocotools",
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Curves, confusion matrix and error types.")] = True,
    name: Annotated[str, typer.Option("--name", help="Name in a submission's file [the weights']")] = "",
    batch: Annotated[int, typer.Option("--batch", min=1, max=65_536, help="Images per batch.")] = 8,
    max_pixels: MaxPixels = 0,
    workers: Annotated[int, typer.Option("--workers", min=0, max=256, help="Processes that decode; 0 = none but this.")] = 0,
    device: Device = "auto",
    engine: Annotated[
        str, typer.Option("--engine", help="auto, torch, onnxruntime or openvino [the network as it was trained]")
    ] = "",
    half: Annotated[bool, typer.Option("--half/--no-half", help="fp16 on CUDA, bf16 on the CPU.")] = False,
    compile: Annotated[bool, typer.Option("--compile", help="torch.compile: a minute at first, then faster.")] = False,
    kernels: Annotated[str, typer.Option("--kernels", help="What torch runs Mish by: auto, eager, fused or compile.")] = "auto",
    output: Annotated[str, typer.Option("--output", help="Folder; a number is added if it exists.")] = "runs/eval",
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Evaluate weights as MS-COCO does; metrics.json, results.json and plots, or a test-dev submission without labels.

    Of a classifier: top-1, top-5, log-loss, calibration error, per class.
    """
    import json
    from functools import partial
    from typing import cast

    from yolomish.data.formats.record import SPLITS, Split
    from yolomish.errors import unknown_name
    from yolomish.evaluation.coco import NAMES
    from yolomish.inference.evaluate import evaluate_weights
    from yolomish.tasks.detection.protocol import find_protocol
    from yolomish.weights.load import load_network

    log = partial(typer.echo, err=True)
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    loaded = load_network(weights, cfg=cfg, model=model, swap=swap or ())
    common: dict[str, Any] = {
        "split": cast(Split, split),
        "size_hw": read_size(imgsz),
        "plots": plots,
        "batch": batch,
        "workers": workers,
        "device": device,
        "kernels": kernels,
        "log": log,
    }
    if not loaded.network.heads:
        from yolomish.inference.classify import evaluate_classifier, protocol_for

        given = given_options(ctx)
        if wrong := sorted(given & OF_DETECTORS):
            raise YolomishError(f"{weights} is a classifier: leave out {', '.join(map(flag, wrong))}")
        of_classes = protocol_for(loaded, protocol)
        where = read_data(data if "data" in given else "digits", fraction, classes, train_share)
        done = evaluate_classifier(weights, loaded, where, of_classes, output, **common)
        if as_json:
            typer.echo(json.dumps(done.metrics))
        else:
            typer.echo(done.protocol)
            for key in CLASS_METRICS:
                typer.echo(f"{key:10} {done.metrics[key]:7.4f}")
            for label, value in done.metrics["per_class"].items():
                typer.echo(f"top1 {label:20} {value:7.4f}")
        typer.echo(f"wrote {done.folder}", err=as_json)
        return
    chosen = find_protocol(protocol or "darknet").changed(conf=conf, iou=iou, nms=nms, max_det=max_det, rect=rect, tta=tta)
    done = evaluate_weights(
        weights,
        loaded,
        read_data(data, fraction, classes, train_share),
        chosen,
        output,
        backend=backend,
        name=name,
        engine=engine,
        half=half,
        compile=compile,
        **common,
    )
    if done.submission:
        typer.echo(f"no labels, no metrics: {done.detections} detections for COCO's server in {done.submission}")
        return
    content = done.metrics
    if as_json:
        typer.echo(json.dumps(content))
    else:
        typer.echo(done.protocol)
        for key in NAMES:
            typer.echo(f"{key:10} {content[key]:7.4f}")
        for label, value in content["per_class"].items():
            typer.echo(f"AP {label:20} {value:7.4f}")
        if plots:
            threshold, f1 = content["best_f1"]["mean"]
            typer.echo(f"best F1 {f1:.4f} at confidence {threshold:.3f} (IoU 0.5, mean over classes)")
    typer.echo(f"wrote {done.folder}", err=as_json)
