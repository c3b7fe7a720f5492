"""What does a training step cost in each layout, precision and compilation, for Mish and Leaky ReLU?

python benchmarks/train_step.py --model yolov4-n --imgsz 256 --batch 4
python benchmarks/train_step.py --model yolov4 --imgsz 608 --batch 16 --device cuda
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from common import interleaved, ratio, report, spread

from yolomish.config import load_model_config, load_recipe
from yolomish.networks import build_network
from yolomish.ops.device import wait
from yolomish.tasks.detection.loss import detection_loss
from yolomish.training.optim import build_optimizer

VARIANTS = {
    "contiguous": {"channels_last": False, "amp": "off", "compile": False},
    "channels_last": {"channels_last": True, "amp": "off", "compile": False},
    "channels_last, bf16": {"channels_last": True, "amp": "bf16", "compile": False},
    "channels_last, compile": {"channels_last": True, "amp": "off", "compile": True},
    "channels_last, bf16, compile": {"channels_last": True, "amp": "bf16", "compile": True},
}


def training_step(act: str, settings: dict, options: argparse.Namespace, device: torch.device) -> Callable[[], None]:
    """A function that does one step: forward, the scaled recipe's loss, backward and SGD."""
    torch.manual_seed(0)
    config = load_recipe("scaled", replace(load_model_config(options.model), activation=act))
    config = replace(config, batch=options.batch, mini_batch=0, image_size=options.imgsz)
    layout = torch.channels_last if settings["channels_last"] else torch.contiguous_format
    model = build_network(config.model).to(device).to(memory_format=layout).train()
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


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="yolov4-n")
    parser.add_argument("--imgsz", type=int, default=256, help="px")
    parser.add_argument("--batch", type=int, default=4, help="images")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--acts", default="leaky_relu,mish")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    steps, first, memory = {}, {}, {}
    for act in options.acts.split(","):
        for name, settings in VARIANTS.items():
            key = f"{act}: {name}"
            step = training_step(act, settings, options, device)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
                before = torch.cuda.memory_allocated(device)
            began = time.perf_counter()
            step()
            wait(device)
            first[key] = time.perf_counter() - began
            step()
            if device.type == "cuda":
                memory[key] = torch.cuda.max_memory_allocated(device) - before
            steps[key] = step
    times = interleaved(steps, options.rounds, device)
    base = times[next(iter(times))]
    rows = []
    for key, seconds in times.items():
        milliseconds = [1000 * s for s in seconds]
        rate = [options.batch / s for s in seconds]
        peak = f"{memory[key] / 2**30:.2f}" if memory else "-"
        rows.append((key, spread(milliseconds), ratio(seconds, base), spread(rate), f"{first[key]:.1f}", peak))
    columns = ("step", "ms", f"x {next(iter(times))}", "images/s", "first step, s", "peak, GiB")
    report(f"Training step of {options.model}, {options.imgsz} px, batch {options.batch}", columns, rows, device)


if __name__ == "__main__":
    main()
