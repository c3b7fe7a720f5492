"""``yolomish eval``: COCO's twelve numbers."""

from __future__ import annotations

from typing import Annotated

import typer


def eval_(
    weights: Annotated[str, typer.Option("--weights", help="Our .pt, Darknet's .weights, or a name (yolov4, demo).")],
    data: Annotated[str, typer.Option("--data", help="Shipped data set (shapes) or a YAML.")] = "shapes",
    cfg: Annotated[str, typer.Option("--cfg", help="Darknet .cfg that belongs to a .weights file; empty = --model.")] = "",
    model: Annotated[str, typer.Option("--model", help="Shipped model or YAML that a .weights file fits.")] = "yolov4",
    split: Annotated[str, typer.Option("--split", help="train, val or test; test may have no labels: a submission.")] = "val",
    protocol: Annotated[
        str, typer.Option("--protocol", help="darknet, darknet-letterbox, letterbox, scaled-yolov4 or ultralytics.")
    ] = "darknet",
    imgsz: Annotated[int, typer.Option("--imgsz", help="Network size, px, a multiple of 32; 0 = the weights' own.")] = 0,
    conf: Annotated[float, typer.Option("--conf", help="Lowest score kept, 0..1; -1 = the protocol's.")] = -1,
    iou: Annotated[float, typer.Option("--iou", help="NMS threshold, 0..1; -1 = the protocol's.")] = -1,
    nms: Annotated[str, typer.Option("--nms", help="greedy-diou or iou; empty = the protocol's.")] = "",
    rect: Annotated[bool, typer.Option("--rect/--no-rect", help="Batches of like shape, little padding (letterbox).")] = False,
    tta: Annotated[str, typer.Option("--tta", help="Test-time views: off, flip, multi-scale or all.")] = "off",
    backend: Annotated[
        str, typer.Option("--backend", help="pycocotools, or faster or hotcoco where installed: the same numbers.")
    ] = "pycocotools",
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Curves, confusion matrix and error types.")] = True,
    name: Annotated[str, typer.Option("--name", help="Name in a submission's file; empty = the weights'.")] = "",
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images a batch.")] = 8,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Processes that decode; 0 = none but this.")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    engine: Annotated[
        str, typer.Option("--engine", help="auto, torch, onnxruntime or openvino; empty = the network as it was trained.")
    ] = "",
    half: Annotated[bool, typer.Option("--half/--no-half", help="fp16 on CUDA, bf16 on the CPU.")] = False,
    compile: Annotated[bool, typer.Option("--compile", help="torch.compile: a minute at first, then faster.")] = False,
    kernels: Annotated[str, typer.Option("--kernels", help="What torch runs Mish by: auto, eager, fused or compile.")] = "auto",
    output: Annotated[str, typer.Option("--output", help="Folder; a number is added if it exists.")] = "runs/eval",
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Evaluate weights as MS-COCO does; metrics.json, results.json and plots, or a test-dev submission without labels."""
    import dataclasses
    import json
    from pathlib import Path
    from typing import cast

    from yolomish.config import check_image_size, load_data_config
    from yolomish.data.datasets import SPLITS, Split, open_data
    from yolomish.errors import YolomishError, unknown_name
    from yolomish.evaluation.coco import check_backend
    from yolomish.evaluation.provenance import warning
    from yolomish.files import free_folder
    from yolomish.inference.engines import build_engine
    from yolomish.kernels import using_kernels
    from yolomish.ops.device import choose_device
    from yolomish.ops.nms import NMS_KINDS
    from yolomish.tasks.detection.predict import predict
    from yolomish.tasks.detection.protocol import PROTOCOLS
    from yolomish.tasks.detection.report import describe_setting, write_evaluation, write_submission
    from yolomish.tasks.detection.views import VIEWS, Runner
    from yolomish.weights.load import load_network

    for kind, value, known in (("protocol", protocol, PROTOCOLS), ("split", split, SPLITS), ("tta", tta, VIEWS)):
        if value not in known:
            raise unknown_name(kind, value, known)
    check_backend(backend)
    if rect and PROTOCOLS[protocol].resize != "letterbox":
        raise YolomishError(f"--rect pads less than a square, protocol {protocol} stretches to one: use --protocol letterbox")
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
    views = "" if tta == "off" else f", views {tta}"
    typer.echo(chosen.describe(len(source), f"{split} ({source.source.name})", size) + views, err=as_json)
    if text := warning(weights, source):
        typer.echo(text, err=True)
    if network.resize != chosen.resize:
        typer.echo(f"note: these weights were trained with {network.resize}, the protocol resizes by {chosen.resize}", err=True)
    settings = {k: v for k, v in dataclasses.asdict(chosen).items() if k != "name"}
    runner: Runner = network.model
    if engine or half or compile:
        made = build_engine(engine or "auto", network.model, device=choose_device(device), half=half, compile=compile)
        typer.echo(made.how, err=True)
        runner = made
    with using_kernels(kernels):
        results = predict(
            runner,
            source,
            image_size=size,
            **settings,
            tta=tta,
            batch=batch,
            device=choose_device(device),
            workers=workers,
            progress=True,
        )
    folder = free_folder(Path(output))
    if not source.annotated:
        archive = write_submission(folder, source, results, name or Path(weights).stem)
        typer.echo(f"no labels, no metrics: {len(results)} detections for COCO's server in {archive}")
        return
    content = write_evaluation(folder, source, results, setting=describe_setting(chosen, size, tta), backend=backend, plots=plots)
    if as_json:
        typer.echo(json.dumps(content))
    else:
        for key, value in content.items():
            if isinstance(value, float):
                typer.echo(f"{key:10} {value:7.4f}")
        for label, value in content["per_class_ap"].items():
            typer.echo(f"AP {label:20} {value:7.4f}")
        if plots:
            threshold, f1 = content["best_f1"]["mean"]
            typer.echo(f"best F1 {f1:.4f} at confidence {threshold:.3f} (IoU 0.5, mean over classes)")
    typer.echo(f"wrote {folder}", err=as_json)
