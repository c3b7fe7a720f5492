"""``yolomish bench``: how fast the engines are on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from yolomish.commands.options import Device, ImageSize, Trust, read_size, split_list, trust_named


def bench(
    weights: Annotated[str, typer.Option("--weights", help="Weights to time [random ones of --model]")] = "",
    model: Annotated[str, typer.Option("--model", help="Shipped model or YAML [yolov4, or the weights' own]")] = "",
    cfg: Annotated[str, typer.Option("--cfg", help="Darknet .cfg that belongs to a .weights file [--model]")] = "",
    engines: Annotated[
        str, typer.Option("--engines", help="By commas: torch, onnxruntime, openvino, opencv; each also as NAME:half.")
    ] = "torch,torch:half,onnxruntime,openvino,openvino:half,opencv",
    acts: Annotated[
        str, typer.Option("--acts", help="Backbone activations, by commas [the weights' own]", callback=trust_named)
    ] = "",
    imgsz: ImageSize = "",
    batch: Annotated[int, typer.Option("--batch", "--batch-size", min=1, max=65_536, help="Images at once.")] = 1,
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=10_000, help="Times that each engine runs.")] = 7,
    threads: Annotated[int, typer.Option("--threads", min=0, max=1024, help="Threads of every engine; 0 = torch's default.")] = 0,
    processor_time: Annotated[
        bool, typer.Option("--processor-time", help="Count this process's time, not the wall's: for busy machines, --threads 1.")
    ] = False,
    darknet: Annotated[str, typer.Option("--darknet", help="Your own build of Darknet, asked in the same rounds.")] = "",
    image: Annotated[str, typer.Option("--image", help="Picture to read, detect in and draw on [a generated one]")] = "",
    device: Device = "auto",
    trust: Trust = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all rounds as JSON.")] = False,
) -> None:
    """Time engines and precisions side by side, and the stages around the network."""
    import dataclasses
    import json
    import sys
    import tempfile
    from pathlib import Path

    import torch

    from yolomish.data.images import read_image, write_image
    from yolomish.inference.bench import as_table, calibrate, measure
    from yolomish.inference.export.verify import generated_image
    from yolomish.networks import build_network, find_model
    from yolomish.ops.device import choose_device
    from yolomish.weights.load import LoadedNetwork, load_network

    if threads:
        torch.set_num_threads(threads)
    chosen = choose_device(device)
    picture = read_image(image) if image else generated_image()
    if weights:
        loaded = load_network(weights, cfg=cfg, model=model)
    else:
        config = find_model(model or "yolov4")
        torch.manual_seed(0)
        loaded = LoadedNetwork(
            network=calibrate(build_network(config), picture), names=tuple(str(i) for i in range(config.num_classes))
        )
    with tempfile.TemporaryDirectory() as folder:
        file = image or str(Path(folder) / "generated.jpg")
        if not image:
            write_image(file, picture)
        report = measure(
            loaded,
            engines=split_list(engines),
            activations=split_list(acts) or [loaded.network.activations()[0]],
            picture=file,
            image=picture,
            size_hw=read_size(imgsz) or loaded.network.input.size_hw,
            batch=batch,
            rounds=rounds,
            device=chosen,
            processor_time=processor_time,
            darknet=darknet,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
    typer.echo(json.dumps(dataclasses.asdict(report)) if as_json else "\n".join(as_table(report)))
