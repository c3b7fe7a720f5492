"""Networks in fp32, bf16 and 8 bits, in OpenVINO and ONNX Runtime: AP where there are trained weights, and the time of one image.

A network is a weights file (ours, or Darknet's of a shipped network), or a shipped model's name with random weights and batch
norms of one picture, whose time alone is shown; =ACT puts another activation in everywhere, without training. Ranges of 8 bits
are those of training images. ONNX has Mish in the elementary form, which is the faster one there.

python benchmarks/int8.py yolov4-tiny.weights swapped.pt --data coco-mini.yaml --imgsz 416
python benchmarks/int8.py yolov4=mish yolov4=leaky_relu --data coco-mini.yaml --imgsz 416 --images 4 --rounds 7
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from common import interleaved, ratio, report, spread

from yolomish.coco_names import COCO_NAMES
from yolomish.config import load_data_config
from yolomish.data.datasets import DetectionData, open_data
from yolomish.evaluation.coco import evaluate
from yolomish.inference.bench import calibrate
from yolomish.inference.engines import Engine
from yolomish.inference.engines.exported import open_exported
from yolomish.inference.export.int8 import ENGINES, predict_int8, write_int8
from yolomish.inference.export.verify import generated_image
from yolomish.inference.export.write import ExportOptions
from yolomish.networks import build_network, find_model
from yolomish.networks.scope import swap
from yolomish.types import SizeHW
from yolomish.weights.load import LoadedNetwork, load_network

CPU = torch.device("cpu")


def load(text: str) -> tuple[LoadedNetwork, bool]:
    """The network that ``text`` names, and whether it is trained."""
    name, _, activation = text.partition("=")
    trained = Path(name).is_file()
    if trained:
        loaded = load_network(name)
    else:
        torch.manual_seed(0)
        model = find_model(name)
        loaded = LoadedNetwork(network=build_network(model).eval(), names=COCO_NAMES)
    if activation:
        swap(loaded.network, (f"all={activation}",))
    if not trained or activation:
        calibrate(loaded.network, generated_image())
    return loaded, trained and not activation


def ap_of(file: Path, val: DetectionData, size_hw: SizeHW) -> float:
    """AP of an exported file in its engine."""
    return evaluate(val.coco(), predict_int8(file, val, size_hw), val.names, val.category_ids).values["AP"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--imgsz", type=int, default=416)
    parser.add_argument("--images", type=int, default=300, help="training images that set the ranges")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    data, size_hw = load_data_config(args.data), (args.imgsz, args.imgsz)
    rows: list[tuple[str, ...]] = []
    engines: dict[str, Engine] = {}
    found: dict[str, str] = {}
    image = torch.rand(1, 3, *size_hw)
    with tempfile.TemporaryDirectory() as root:
        for i, text in enumerate(args.networks):
            loaded, trained = load(text)
            shown = Path(text).name
            train = open_data(data, "train").with_classes(loaded.names, shown).first(args.images)
            val = open_data(data, "val").with_classes(loaded.names, shown)
            for format, name in ENGINES.items():
                folder = Path(root) / f"{i}-{format}"
                folder.mkdir()
                options = ExportOptions(elementary=format == "onnx")
                for file in write_int8(loaded, folder, format, train, size_hw=size_hw, options=options):
                    key = f"{shown}|{name} {file.stem}"
                    engines[key], _ = open_exported(file, engine=name, device=CPU)
                    found[key] = f"{ap_of(file, val, size_hw):.4f}" if trained else ""
            halved = f"{shown}|openvino bf16"
            engines[halved], _ = open_exported(
                Path(root) / f"{i}-openvino" / "fp32.xml", engine="openvino", device=CPU, half=True
            )
        calls: dict[str, Callable[[], object]] = {key: partial(engine, image) for key, engine in engines.items()}
        interleaved(calls, 2, CPU)  # compiles, warms up
        seconds = interleaved(calls, args.rounds, CPU)
    first = Path(args.networks[0]).name
    for key in sorted(calls, key=lambda key: key.partition("|")[2].partition(" ")[0]):
        name, _, engine = key.partition("|")
        fp32 = f"{name}|{engine.partition(' ')[0]} fp32"
        against = ratio(seconds[key], seconds[f"{first}|{engine}"]) if name != first else ""
        faster = ratio(seconds[fp32], seconds[key]) if key != fp32 else ""
        rows.append((engine, name, found.get(key, ""), spread([1000 * s for s in seconds[key]]), faster, against))
    columns = ("engine", "network", "AP", "ms an image", "times faster than fp32", f"time / {first}")
    report(f"Eight bits at {args.imgsz} px", columns, rows, CPU, f"{args.rounds} rounds, ranges of {len(train)} training images.")


if __name__ == "__main__":
    main()
