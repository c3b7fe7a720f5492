"""``yolomish export``: a network for another runtime."""

from __future__ import annotations

from typing import Annotated

import typer

from yolomish.commands.options import Force, ImageSize, Swap, Trust, read_size


def export(
    weights: Annotated[
        str, typer.Option("--weights", help="A name (yolov4-tiny, demo), our .pt or Darknet's .weights.")
    ] = "yolov4",
    format: Annotated[str, typer.Option("--format", help="onnx, openvino, torchscript, torch_export or darknet.")] = "onnx",
    output: Annotated[str, typer.Option("--output", help="File to write [beside the weights, by the format]")] = "",
    cfg: Annotated[str, typer.Option("--cfg", help="Darknet .cfg that belongs to a .weights file [--model]")] = "",
    model: Annotated[str, typer.Option("--model", help="Shipped model or YAML that a .weights file fits [by itself]")] = "",
    swap: Swap = None,
    trust: Trust = False,
    names: Annotated[str, typer.Option("--names", help="File with one class name a line [the weights' own]")] = "",
    imgsz: ImageSize = "",
    opset: Annotated[int, typer.Option("--opset", help="ONNX opset; Mish has an operator from 18 on.")] = 18,
    elementary: Annotated[
        bool,
        typer.Option("--elementary", help="Write Mish with Sigmoid, Mul, Div: for older runtimes, and faster in ONNX Runtime."),
    ] = False,
    dynamic: Annotated[bool, typer.Option("--dynamic/--fixed", help="Any batch and size, or 1 x --imgsz.")] = True,
    nms: Annotated[bool, typer.Option("--nms", help="Put decoding and NMS (plain IoU) into the ONNX file.")] = False,
    conf: Annotated[float, typer.Option("--conf", min=0, max=1, help="Lowest score kept by --nms, 0..1.")] = 0.25,
    iou: Annotated[float, typer.Option("--iou", min=0, max=1, help="Threshold of --nms, 0..1.")] = 0.45,
    max_det: Annotated[
        int, typer.Option("--max-det", min=1, max=1_000_000, help="Most boxes per class and image of --nms.")
    ] = 100,
    force: Force = False,
    int8: Annotated[bool, typer.Option("--int8", help="ONNX, OpenVINO: 8 bits; --data sets ranges and judges.")] = False,
    data: Annotated[str, typer.Option("--data", help="Data set of --int8: training images for the ranges, val for AP.")] = "",
    images: Annotated[int, typer.Option("--images", min=1, max=1_000_000, help="Most training images of --int8.")] = 300,
    image: Annotated[str, typer.Option("--image", help="Photograph to verify on [a generated picture]")] = "",
) -> None:
    """Write the network for ONNX, OpenVINO, torch or Darknet, verified against torch before it is kept."""
    import dataclasses
    from pathlib import Path

    from yolomish.data.images import read_image
    from yolomish.errors import YolomishError, unknown_name
    from yolomish.files import read_names, refuse_existing
    from yolomish.inference.export.verify import generated_image
    from yolomish.inference.export.write import SUFFIXES, ExportOptions, export_network, target_files
    from yolomish.weights.load import load_network
    from yolomish.weights.store import locate_weights

    if format not in SUFFIXES:
        raise unknown_name("export format", format, SUFFIXES)
    path = locate_weights(weights)
    if int8:
        from yolomish.inference.export.int8 import STATED, export_int8, require_int8

        if not data:
            raise YolomishError("--int8 needs a data set, whose training images set its ranges: give --data")
        require_int8(format)
    target = Path(output) if output else path.with_suffix(SUFFIXES[format][0])
    files = target_files(target, format)
    if path.resolve() in (file.resolve() for file in files):
        raise YolomishError(f"this would overwrite {path} itself: name another file by --output")
    refuse_existing(files, force)
    loaded = load_network(str(path), cfg=cfg, model=model, swap=swap or ())
    for note in loaded.notes:
        typer.echo(note, err=True)
    if names:
        own = read_names(names)
        if len(own) != len(loaded.names):
            raise YolomishError(f"{names} names {len(own)} classes, the weights have {len(loaded.names)}")
        loaded = dataclasses.replace(loaded, names=own)
    size_hw = read_size(imgsz) or loaded.network.input.size_hw
    picture = read_image(image) if image else generated_image()
    options = ExportOptions(opset=opset, elementary=elementary, dynamic=dynamic, nms=nms, conf=conf, iou=iou, max_det=max_det)
    if int8:
        from yolomish.config import load_data_config

        config = load_data_config(data)
        small = export_int8(
            loaded, target, format, config, image=picture, size_hw=size_hw, options=options, images=images, force=force
        )
        typer.echo(small.stated.protocol)
        for what, values in (("fp32", small.stated.fp32), (f"int8, ranges of {small.stated.images} images", small.stated.int8)):
            typer.echo(f"{what}: " + "  ".join(f"{name} {value:.4f}" for name, value in zip(STATED, values, strict=True)))
        typer.echo(f"wrote {', '.join(str(file) for file in small.files)}")
        return
    done = export_network(loaded, target, format, image=picture, size_hw=size_hw, options=options, force=force)
    typer.echo(f"verified on {image or 'a generated picture'}: {done.agreement}")
    typer.echo(f"wrote {', '.join(str(file) for file in done.files)}")
