"""``yolomish detect``: find objects in images."""

from __future__ import annotations

from typing import Annotated

import typer


def detect(
    sources: Annotated[list[str], typer.Argument(help="Images, folders or globs.")],
    weights: Annotated[str, typer.Option("--weights", help="Our checkpoint (.pt) or Darknet's .weights.")],
    cfg: Annotated[str, typer.Option("--cfg", help="Darknet .cfg that belongs to a .weights file; empty = --model.")] = "",
    model: Annotated[str, typer.Option("--model", help="Shipped model or YAML that a .weights file fits.")] = "yolov4",
    names: Annotated[str, typer.Option("--names", help="File with one class name a line; empty = the weights' own.")] = "",
    conf: Annotated[float, typer.Option("--conf", min=0, max=1, help="Lowest score kept, 0..1.")] = 0.25,
    iou: Annotated[float, typer.Option("--iou", min=0, max=1, help="NMS threshold, 0..1.")] = 0.45,
    nms: Annotated[str, typer.Option("--nms", help="greedy-diou (Darknet's) or iou.")] = "greedy-diou",
    imgsz: Annotated[int, typer.Option("--imgsz", help="Network size, px, a multiple of 32; 0 = the weights' own.")] = 0,
    classes: Annotated[str, typer.Option("--classes", help="Class names or numbers to keep, by commas; empty = all.")] = "",
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    engine: Annotated[str, typer.Option("--engine", help="What runs the network: auto or torch.")] = "auto",
    half: Annotated[bool, typer.Option("--half/--no-half", help="fp16 on CUDA, bf16 on the CPU.")] = False,
    max_det: Annotated[int, typer.Option("--max-det", min=1, help="Most detections an image.")] = 300,
    agnostic_nms: Annotated[bool, typer.Option("--agnostic-nms", help="Let classes suppress one another.")] = False,
    output: Annotated[str, typer.Option("--output", help="Folder; a number is added if it exists.")] = "runs/detect",
    save: Annotated[bool, typer.Option("--save/--no-save", help="Write annotated pictures.")] = True,
    save_json: Annotated[bool, typer.Option("--save-json", help="Write detections.json, boxes in image px.")] = False,
    save_csv: Annotated[bool, typer.Option("--save-csv", help="Write detections.csv, boxes in image px.")] = False,
    save_txt: Annotated[bool, typer.Option("--save-txt", help="Write one YOLO txt an image, boxes as fractions.")] = False,
) -> None:
    """Detect objects; one line an image. Exit code 1 if a file could not be read (the rest is done)."""
    import sys
    import time
    from collections import Counter
    from pathlib import Path

    from tqdm import tqdm

    from yolomish.data.images import read_image, write_image
    from yolomish.errors import YolomishError
    from yolomish.inference.detector import Detector
    from yolomish.inference.draw import draw_detections
    from yolomish.inference.outputs import ImageResult, free_folder, write_csv, write_json, write_yolo
    from yolomish.inference.sources import expand_sources
    from yolomish.training.checkpoint import load_network

    paths = expand_sources(sources)
    network = load_network(weights, cfg=cfg, model=model)
    class_names = network.names
    if names:
        try:
            class_names = tuple(Path(names).read_text(encoding="utf-8").split("\n"))
        except OSError as error:
            raise YolomishError(f"{names} cannot be read: {error.strerror}") from None
        class_names = tuple(n.strip() for n in class_names if n.strip())
        if len(class_names) != len(network.names):
            raise YolomishError(f"{names} names {len(class_names)} classes, the weights have {len(network.names)}")
    detector = Detector(
        network,
        names=class_names,
        image_size=imgsz,
        conf=conf,
        iou=iou,
        nms=nms,
        max_det=max_det,
        agnostic=agnostic_nms,
        classes=[c.strip() for c in classes.split(",") if c.strip()],
        device=device,
        engine=engine,
        half=half,
    )
    folder = free_folder(Path(output)) if save or save_json or save_csv or save_txt else None
    results, broken, used = [], 0, Counter[str]()
    for path in tqdm(paths, desc="detect", disable=len(paths) < 2 or None, file=sys.stderr):
        start = time.perf_counter()
        try:
            image = read_image(path)
        except YolomishError as error:
            broken += 1
            tqdm.write(f"skipped: {error}", file=sys.stderr)
            continue
        found = detector.detect(image)
        result = ImageResult(path=path, size_hw=image.shape[:2], detections=found)
        results.append(result)
        if folder is not None:
            used[path.name] += 1
            stem = path.stem if used[path.name] == 1 else f"{path.stem}-{used[path.name]}"
            if save:
                write_image(folder / f"{stem}{path.suffix}", draw_detections(image, found, class_names))
            if save_txt:
                write_yolo(result, folder / f"{stem}{path.suffix}.txt")
        counts = Counter(class_names[k] for k in found.labels.tolist())
        text = ", ".join(f"{n} {name}" for name, n in counts.most_common()) or "nothing"
        milliseconds = 1000 * (time.perf_counter() - start)
        tqdm.write(f"{path} {image.shape[1]}x{image.shape[0]}: {text} ({milliseconds:.0f} ms)", file=sys.stdout)
    if folder is not None:
        if save_json:
            write_json(results, class_names, folder / "detections.json")
        if save_csv:
            write_csv(results, class_names, folder / "detections.csv")
        typer.echo(f"wrote {folder}")
    if broken:
        typer.echo(f"{broken} of {len(paths)} files could not be read", err=True)
        raise typer.Exit(1)
