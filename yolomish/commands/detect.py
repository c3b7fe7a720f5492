"""``yolomish detect``: find objects in pictures, wherever they come from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from yolomish.commands.options import NMS_HELP, Device, ImageSize, MaxPixels, Swap, Trust, read_size, split_list

if TYPE_CHECKING:
    from yolomish.inference.run import Found


def detect(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Images, videos, folders, globs, lists (.txt), URLs (http, rtsp), cameras (0, /dev/video0), or - for stdin."
        ),
    ],
    weights: Annotated[
        str, typer.Option("--weights", help="A name (yolov4-tiny, demo), our .pt or Darknet's .weights.")
    ] = "yolov4",
    cfg: Annotated[str, typer.Option("--cfg", help="Darknet .cfg that belongs to a .weights file [--model]")] = "",
    model: Annotated[str, typer.Option("--model", help="Shipped model or YAML that a .weights file fits [by itself]")] = "",
    swap: Swap = None,
    trust: Trust = False,
    names: Annotated[str, typer.Option("--names", help="File with one class name a line [the weights' own]")] = "",
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol",
            help="Resize, thresholds and NMS by a name that eval knows too [as trained, conf 0.25, iou 0.45; darknet-test for a "
            "Darknet file]",
        ),
    ] = "",
    conf: Annotated[
        float | None,
        typer.Option("--conf", "--conf-thres", min=0, max=1, help="Lowest score kept, 0..1 [the protocol's]"),
    ] = None,
    iou: Annotated[
        float | None, typer.Option("--iou", "--iou-thres", min=0, max=1, help="NMS threshold, 0..1 [the protocol's]")
    ] = None,
    nms: Annotated[str | None, typer.Option("--nms", help=NMS_HELP)] = None,
    imgsz: ImageSize = "",
    classes: Annotated[str, typer.Option("--classes", help="Class names or numbers to keep, by commas [all]")] = "",
    device: Device = "auto",
    engine: Annotated[
        str, typer.Option("--engine", help="auto (the fastest installed), torch, onnxruntime or openvino.")
    ] = "auto",
    compile: Annotated[bool, typer.Option("--compile", help="torch.compile: a minute at first, then faster.")] = False,
    kernels: Annotated[str, typer.Option("--kernels", help="What torch runs Mish by: auto, eager, fused or compile.")] = "auto",
    half: Annotated[bool, typer.Option("--half/--no-half", help="fp16 on CUDA, bf16 on the CPU.")] = False,
    batch: Annotated[
        int, typer.Option("--batch", "--batch-size", min=1, max=65_536, help="Images through the network at once.")
    ] = 1,
    max_det: Annotated[
        int | None,
        typer.Option("--max-det", min=0, max=1_000_000, help="Most detections per image, 0 = no limit [the protocol's]"),
    ] = None,
    agnostic_nms: Annotated[bool, typer.Option("--agnostic-nms", help="Let classes suppress one another.")] = False,
    max_pixels: MaxPixels = 0,
    vid_stride: Annotated[
        int, typer.Option("--vid-stride", min=1, max=1_000_000, help="Look at every N-th frame of a video.")
    ] = 1,
    output: Annotated[str, typer.Option("--output", help="Folder; a number is added if it exists.")] = "runs/detect",
    save: Annotated[bool, typer.Option("--save/--no-save", help="Write annotated pictures and videos.")] = True,
    save_json: Annotated[bool, typer.Option("--save-json", help="Write detections.json in COCO's format.")] = False,
    save_csv: Annotated[bool, typer.Option("--save-csv", help="Write detections.csv, boxes xyxy in image px.")] = False,
    save_txt: Annotated[bool, typer.Option("--save-txt", help="Write labels/NAME.txt in YOLO's format.")] = False,
    save_conf: Annotated[bool, typer.Option("--save-conf", help="--save-txt with a column of scores.")] = False,
    save_crop: Annotated[bool, typer.Option("--save-crop", help="Write each object to crops/CLASS/.")] = False,
    line_width: Annotated[int, typer.Option("--line-width", min=0, max=1000, help="Width of drawn boxes, px; 0 = by size.")] = 0,
    show: Annotated[bool, typer.Option("--show", help="Show the pictures in a window; q stops.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per picture to stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no line per picture.")] = False,
) -> None:
    """Detect objects. Exit code 1 if something could not be read (the rest is done), 2 if nothing could be begun."""
    import json
    import os
    import sys
    from contextlib import nullcontext

    from yolomish.files import read_names
    from yolomish.inference.sources import expand_sources

    wanted = expand_sources(sources, lambda line: say(line, sys.stderr))
    class_names = read_names(names) if names else ()
    if show:
        from yolomish.inference.show import check_display

        check_display()

    import cv2
    from tqdm import tqdm

    from yolomish.drawing.boxes import draw_detections
    from yolomish.files import free_folder
    from yolomish.inference.detector import Detector
    from yolomish.inference.outputs import OutputChoice, Outputs
    from yolomish.inference.records import as_record
    from yolomish.inference.run import Found, detect_sources
    from yolomish.inference.show import show as show_window
    from yolomish.inference.stop import Stop
    from yolomish.kernels import using_kernels

    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what cannot be read is said below, once
    detector = Detector(
        weights,
        cfg=cfg,
        model=model,
        swap=swap or (),
        names=class_names,
        image_size=read_size(imgsz) or 0,
        protocol=protocol,
        conf=conf,
        iou=iou,
        nms=nms,
        max_det=max_det,
        agnostic=agnostic_nms,
        classes=split_list(classes),
        device=device,
        engine=engine,
        half=half,
        compile=compile,
    )
    if not (quiet or as_json):
        typer.echo(f"{detector.engine.how}; protocol {detector.pipeline.protocol.name}", err=True)
    for note in detector.notes:
        typer.echo(note, err=True)
    choice = OutputChoice(
        pictures=save,
        json=save_json,
        csv=save_csv,
        txt=save_txt or save_conf,
        crops=save_crop,
        scores=save_conf,
        line_width=line_width,
    )
    folder = free_folder(Path(output)) if choice.anything else None
    failed: set[str] = set()
    names_done: set[str] = set()
    done, stopped = 0, False
    pictures = len(wanted) if all("image" in source.kind for source in wanted) else None  # None: nobody knows
    bar = tqdm(total=pictures, desc="detect", unit="picture", disable=True if pictures == 1 else None, leave=False)
    stop = Stop()
    with stop.listening():
        try:
            with using_kernels(kernels), bar, Outputs(folder, detector.names, choice) if folder else nullcontext() as outputs:
                for item in detect_sources(detector, wanted, batch=1 if show else batch, vid_stride=vid_stride):
                    with stop.shield():
                        bar.update()
                        if not isinstance(item, Found):
                            failed.add(item.name)
                            say(f"failed: {item.reason}", sys.stderr)
                            if as_json:
                                say(json.dumps({"file": item.name, "error": item.reason}))
                            continue
                        if outputs:
                            outputs.add(item.frame, item.detections)
                        done += 1
                        names_done.add(item.frame.name)
                        if as_json:
                            say(json.dumps(as_record(item.frame, item.detections, detector.names)))
                        elif not quiet:
                            say(describe(item, detector.names))
                    if show:
                        drawn = draw_detections(item.frame.image, item.detections, detector.names, line_width=line_width)
                        if not show_window(drawn, wait=item.frame.number is None):
                            break
        except KeyboardInterrupt:
            stopped = True
        except BrokenPipeError:  # `| head` has seen enough
            sys.stdout = open(os.devnull, "w")
    if folder:
        typer.echo(f"wrote {folder}", err=as_json)
    if stopped:
        typer.echo(f"stopped after {done} pictures", err=True)
        raise typer.Exit(128 + (stop.number or 2))
    if failed:
        typer.echo(f"{len(failed)} of {len(failed | names_done)} sources failed: {', '.join(sorted(failed)[:20])}", err=True)
        raise typer.Exit(1)


def say(text: str, file: TextIO | None = None) -> None:
    """Print a line at once, to stdout unless told, beside a progress bar."""
    from tqdm import tqdm

    with tqdm.external_write_mode():
        print("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text), file=file, flush=True)


def describe(item: Found, names: tuple[str, ...]) -> str:
    """One line on a picture: name, size, what was found, ms."""
    from collections import Counter

    frame = item.frame
    counts = Counter(names[k] for k in item.detections.labels.tolist())
    text = ", ".join(f"{n} {name}" for name, n in counts.most_common()) or "nothing"
    number = "" if frame.number is None else f" frame {frame.number}"
    return f"{frame.name}{number} {frame.image.shape[1]}x{frame.image.shape[0]}: {text} ({item.milliseconds:.0f} ms)"
