"""From raw maps of 608 px (22,743 anchors, 80 classes) to detections: ours against decoding all and torchvision's NMS.

Logits are normal numbers; ``random`` lies like an untrained network's, ``trained`` like a trained one's, where few anchors
see an object. Both ways are checked to find the same scores. With ``--cfg`` and ``--data`` instead: a whole evaluation by
protocol darknet of that network with random weights, which finds as much as the protocol allows in every picture.

python benchmarks/nms.py [--device cuda]
python benchmarks/nms.py --cfg yolov4-tiny.cfg --data coco.yaml
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from common import interleaved, ratio, report, spread
from torch import Tensor
from torchvision.ops import batched_nms

from yolomish.config import ModelConfig, load_data_config
from yolomish.data.datasets import DetectionData, open_data
from yolomish.networks import Network, build_network, find_model
from yolomish.ops.decode import decode
from yolomish.ops.nms import Selection, postprocess
from yolomish.tasks.detection.pipeline import Pipeline
from yolomish.tasks.detection.predict import predict
from yolomish.tasks.detection.protocol import PROTOCOLS
from yolomish.types import HeadSpec

SIZE, IOU, MOST, USUAL_MOST = 608, 0.45, 300, 30_000
BATCH = 8
SCENES = {"random": ((0.0, 1.0), (0.0, 1.0)), "crowded": ((-6.0, 2.5), (-5.0, 2.0)), "trained": ((-9.0, 2.5), (-6.0, 3.0))}


def raw_maps(scene: str, heads: tuple[HeadSpec, ...], device: torch.device) -> list[Tensor]:
    """Raw maps of one image whose objectness and class logits have the scene's means and deviations."""
    torch.manual_seed(0)
    (object_mean, object_spread), (class_mean, class_spread) = SCENES[scene]
    maps = []
    for head in heads:
        side = SIZE // head.stride
        raw = torch.randn(1, len(head.anchors), 5 + head.num_classes, side, side)
        raw[:, :, 4] = raw[:, :, 4] * object_spread + object_mean
        raw[:, :, 5:] = raw[:, :, 5:] * class_spread + class_mean
        maps.append(raw.flatten(1, 2).to(device).contiguous(memory_format=torch.channels_last))
    return maps


@torch.inference_mode()
def usual(maps: list[Tensor], heads: tuple[HeadSpec, ...], conf: float) -> Tensor:
    """Scores of what is left when everything is decoded and torchvision suppresses by plain IoU, class by class."""
    decoded = decode(maps, heads)
    objectness = decoded.objectness[0]
    scores = objectness[:, None] * decoded.classes[0]
    rows, labels = ((scores > conf) & (objectness > conf)[:, None]).nonzero(as_tuple=True)
    values = scores[rows, labels]
    if len(values) > USUAL_MOST:
        values, top = values.topk(USUAL_MOST)
        rows, labels = rows[top], labels[top]
    kept = batched_nms(decoded.boxes[0][rows], values, labels, IOU)[:MOST]
    return values[kept]


@torch.inference_mode()
def ours(maps: list[Tensor], heads: tuple[HeadSpec, ...], conf: float, kind: str) -> Tensor:
    """Scores of what ``postprocess`` leaves."""
    return postprocess(maps, heads, Selection(conf=conf, iou=IOU, nms=kind, max_det=MOST))[0].scores


@torch.inference_mode()
def forward(network: Network, batches: list[Tensor]) -> None:
    """The network alone, on prepared batches."""
    for images in batches:
        network(images)


def untrained(cfg: str, data: DetectionData, rounds: int, device: torch.device) -> None:
    """Time an evaluation by protocol darknet with random weights, against its network alone, and print the table."""
    torch.manual_seed(0)
    network = build_network(find_model(cfg)).to(device).eval()
    pipeline = Pipeline(runner=network, protocol=PROTOCOLS["darknet"], size_hw=network.input.size_hw, device=device)
    prepared = [
        pipeline.prepare([data.load(i).image for i in range(start, min(start + BATCH, len(data)))])[0]
        for start in range(0, len(data), BATCH)
    ]
    found = len(predict(pipeline, data, batch=BATCH))
    ways = {
        "the network alone": partial(forward, network, prepared),
        "evaluation, pictures read and resized": partial(predict, pipeline, data, batch=BATCH),
    }
    times = interleaved(ways, rounds, device)
    base = times["the network alone"]
    rows = [(name, spread(seconds), ratio(seconds, base)) for name, seconds in times.items()]
    title = f"{len(data)} pictures through an untrained {network.name} by protocol darknet: {found:,} boxes"
    report(title, ("what", "s", "x first"), rows, device)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cfg", default="")
    parser.add_argument("--data", default="")
    options = parser.parse_args()
    device = torch.device(options.device)
    if options.cfg:
        return untrained(options.cfg, open_data(load_data_config(options.data), "val"), options.rounds, device)
    heads = build_network(ModelConfig(width=0.125, depth=0.1)).heads
    rows = []
    for scene in SCENES:
        maps = raw_maps(scene, heads, device)
        for conf in (0.001, 0.25):
            ways = {
                "decode all, torchvision batched_nms": partial(usual, maps, heads, conf),
                "ours, iou": partial(ours, maps, heads, conf, "iou"),
                "ours, greedy-diou": partial(ours, maps, heads, conf, "greedy-diou"),
            }
            found = {name: way() for name, way in ways.items()}
            assert torch.allclose(found["ours, iou"], found["decode all, torchvision batched_nms"]), (scene, conf)
            times = interleaved(ways, options.rounds, device)
            base = next(iter(times.values()))
            rows += [
                (scene, f"{conf}", name, f"{len(found[name])}", spread([1000 * s for s in seconds]), ratio(seconds, base))
                for name, seconds in times.items()
            ]
    columns = ("logits", "conf", "by", "found", "ms", "x first")
    report("NMS of 22,743 boxes x 80 classes", columns, rows, device)


if __name__ == "__main__":
    main()
