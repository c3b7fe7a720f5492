"""What does a training step cost in each layout, precision and compilation, in time and in memory, beside torch's own layers?

The measure is ``BASE`` with the same settings: torch's convolution, batch norm and in-place LeakyReLU, as a network without
yolomish has them. Each activation is then run as yolomish runs it.

python benchmarks/train_step.py --model yolov4-n --imgsz 256 --batch 4
python benchmarks/train_step.py --model yolov4 --imgsz 160 --batch 2 --variants "contiguous,channels_last,channels_last bf16"
python benchmarks/train_step.py --model yolov4 --imgsz 608 --batch 16 --device cuda
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate

import torch
from common import interleaved, ratio, report, spread
from torch import nn

from yolomish.config import load_model_config, load_recipe
from yolomish.networks import build_network
from yolomish.nn.blocks import ConvBlock
from yolomish.ops.device import wait
from yolomish.tasks.detection.loss import detection_loss
from yolomish.training.optim import build_optimizer

BASE = "torch's in-place leaky_relu"
VARIANTS = {
    "contiguous": {"channels_last": False, "amp": "off", "compile": False},
    "channels_last": {"channels_last": True, "amp": "off", "compile": False},
    "channels_last bf16": {"channels_last": True, "amp": "bf16", "compile": False},
    "channels_last compile": {"channels_last": True, "amp": "off", "compile": True},
    "channels_last bf16 compile": {"channels_last": True, "amp": "bf16", "compile": True},
}


def training_step(act: str, settings: dict, options: argparse.Namespace, device: torch.device) -> Callable[[], None]:
    """A function that does one step: forward, the scaled recipe's loss, backward and SGD."""
    torch.manual_seed(0)
    named = replace(load_model_config(options.model), activation="leaky_relu" if act == BASE else act)
    config = load_recipe("scaled", named)
    config = replace(config, batch=options.batch, mini_batch=0, image_size=options.imgsz)
    layout = torch.channels_last if settings["channels_last"] else torch.contiguous_format
    model = build_network(config.model)
    if act == BASE:
        for block in model.modules():
            if isinstance(block, ConvBlock) and block.activation_name == "leaky_relu":
                block.act, block.activation_name = nn.LeakyReLU(0.1, inplace=True), BASE
    model = model.to(device).to(memory_format=layout).train()
    optimizer = build_optimizer(model, config)
    forward = torch.compile(model) if settings["compile"] else model
    images = torch.rand(options.batch, 3, options.imgsz, options.imgsz, device=device).contiguous(memory_format=layout)
    corner = torch.rand(8 * options.batch, 2) * options.imgsz * 0.7
    boxes = torch.cat((corner, corner + 8 + torch.rand(len(corner), 2) * options.imgsz * 0.25), 1)
    owner = torch.arange(len(boxes))[:, None] % options.batch
    targets = torch.cat((owner, torch.randint(config.model.num_classes, owner.shape), boxes), 1).float().to(device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings["amp"] == "bf16"):
            maps = forward(images)
        detection_loss(maps, model.heads, targets, config).total.backward()
        optimizer.step()

    return step


def peak_of(step: Callable[[], None], device: torch.device) -> int:
    """Bytes that torch holds at the most during a step, beyond what it held before; what oneDNN takes for itself is not in it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())))


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="yolov4-n")
    parser.add_argument("--imgsz", type=int, default=256, help="px")
    parser.add_argument("--batch", type=int, default=4, help="images")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--acts", default="leaky_relu,mish")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="of the settings")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    steps, first, memory = {}, {}, {}
    for name in options.variants.split(","):
        for act in (BASE, *options.acts.split(",")):
            step = training_step(act, VARIANTS[name], options, device)
            began = time.perf_counter()
            step()
            wait(device)
            first[name, act] = time.perf_counter() - began
            memory[name, act] = peak_of(step, device)
            steps[name, act] = step
    times = interleaved(steps, options.rounds, device)
    rows = []
    for (name, act), seconds in times.items():
        base = times[name, BASE]
        milliseconds = spread([1000 * s for s in seconds])
        rate = spread([options.batch / s for s in seconds])
        peak, share = memory[name, act], memory[name, act] / memory[name, BASE]
        measured = milliseconds, ratio(seconds, base), rate, f"{first[name, act]:.1f}", f"{peak / 2**20:.0f}", f"{share:.3f}"
        rows.append((name, act, *measured))
    columns = ("settings", "activation", "ms", "x torch's own", "images/s", "first step, s", "peak, MiB", "x torch's own")
    report(f"Training step of {options.model}, {options.imgsz} px, batch {options.batch}", columns, rows, device)


if __name__ == "__main__":
    main()
