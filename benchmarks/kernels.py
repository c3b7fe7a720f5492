"""What does an activation cost, alone, behind batch norm and in a whole step, by whose kernels?

Builds, checks and times all variants in one call, interleaved. Each variant is first checked against float64.

python benchmarks/kernels.py                                  # CUDA where there is one, else the CPU
python benchmarks/kernels.py --device cuda --batch 16 --sizes 416,608 --dtype bf16
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from common import interleaved, ratio, report, spread
from torch import Tensor, nn
from torch.nn import functional as F

from yolomish.activations import build_activation
from yolomish.config import load_model_config, load_recipe
from yolomish.kernels import choose, lean_memory, mish, norm_act, using_kernels
from yolomish.networks import build_network
from yolomish.nn.blocks import ConvBlock
from yolomish.nn.fold import folded
from yolomish.ops.device import wait
from yolomish.tasks.detection.loss import detection_loss
from yolomish.training.optim import build_optimizer

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MAPS = ((32, 1), (256, 8), (512, 16))  # channels, and the image's size over the map's
Step = Callable[[], Any]


def naive_mish(x: Tensor) -> Tensor:
    """As first written: three activations and a product, each with its own saved tensor."""
    return x * torch.tanh(F.softplus(x))


def block(bn: nn.Module, act: str, x: Tensor) -> Tensor:
    """Batch norm and activation by our kernels."""
    with using_kernels("fused" if x.is_cuda else "auto"):  # Triton on small maps too
        return norm_act(x, bn, build_activation(act), act)


def alone(x: Tensor) -> Tensor:
    """Mish by our kernels."""
    with using_kernels("fused" if x.is_cuda else "auto"):
        return mish(x)


def graphed(step: Step) -> Step:
    """``step`` as a CUDA graph, whose replay takes the GPU's time alone."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # what compiles must do so before the capture
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def checked(name: str, function: Callable[[Tensor], Tensor], truth: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """Refuse to time what is wrong: forward and input gradient against float64."""
    a, b = x.detach().clone().requires_grad_(), x.detach().double().requires_grad_()
    y, t = function(a), truth(b)
    (g,), (h,) = (torch.autograd.grad(v.float().sum(), u) for v, u in ((y, a), (t, b)))
    limit = 1e-4 if x.dtype == torch.float32 else 0.05
    for what, ours, true in (("result", y, t), ("gradient", g, h)):
        error = ((ours.double() - true).abs().max() / true.abs().max()).item()
        assert error < limit, f"{name}: {what} is {error:.1e} from float64"


def both_ways(function: Callable[[Tensor], Tensor], x: Tensor) -> Step:
    """Forward and backward of ``function`` at ``x``."""
    source, dy = x.detach().clone().requires_grad_(), torch.ones_like(x)
    return lambda: torch.autograd.grad(function(source), source, dy)


def timed(steps: dict[str, Step], options: argparse.Namespace, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each step in each interleaved round: by the clock, or this process's CPU time, for a busy machine."""
    if not options.cpu_time:
        return interleaved(steps, options.rounds, device)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.rounds):
        for name, step in steps.items():
            began = time.process_time()
            step()
            times[name].append(time.process_time() - began)
    return times


def copy_bandwidth(x: Tensor, device: torch.device) -> float:
    """Bytes a second, read and written, of torch's copy of a map."""
    y = torch.empty_like(x)
    seconds = interleaved({"copy": lambda: y.copy_(x)}, 15, device)["copy"]
    return 2 * x.numel() * x.element_size() / sorted(seconds)[len(seconds) // 2]


def blocks(options: argparse.Namespace, device: torch.device, size: int) -> list[tuple[str, ...]]:
    """Rows for activations alone and behind batch norm on maps of three levels."""
    rows = []
    dtype = DTYPES[options.dtype]
    for channels, stride in MAPS:
        x = torch.randn(options.batch, channels, size // stride, size // stride, device=device).to(dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        bandwidth = copy_bandwidth(x, device)
        bn = nn.BatchNorm2d(channels, device=device)
        runs = choose("auto", device.type, dtype, "mish").implementation
        compiled_mish = torch.compile(F.mish, dynamic=True)
        compiled_block = torch.compile(lambda v, bn=bn: F.mish(bn(v)), dynamic=True)
        groups: dict[str, tuple[Callable[[Tensor], Tensor], dict[str, Callable[[Tensor], Tensor]], tuple[int, int]]] = {
            "activation": (
                F.mish,
                {
                    "F.leaky_relu": lambda v: F.leaky_relu(v, 0.1),
                    "x·tanh(softplus(x))": naive_mish,
                    "F.mish": F.mish,
                    "F.mish, torch.compile": compiled_mish,
                    f"mish, ours ({runs})": alone,
                },
                (2, 3),
            ),
            "BN + activation": (
                lambda v, bn=bn: F.mish(F.batch_norm(v, None, None, bn.weight.double(), bn.bias.double(), True, 0.1, bn.eps)),
                {
                    "torch BN + in-place leaky": lambda v, bn=bn: F.leaky_relu(bn(v), 0.1, inplace=True),
                    "torch BN + x·tanh(softplus(x))": lambda v, bn=bn: naive_mish(bn(v)),
                    "torch BN + F.mish": lambda v, bn=bn: F.mish(bn(v)),
                    "torch.compile(BN + F.mish)": compiled_block,
                    "leaky, ours": partial(block, bn, "leaky_relu"),
                    f"mish, ours ({runs})": partial(block, bn, "mish"),
                },
                (3, 5),
            ),
        }
        for group, (truth, variants, (forward_passes, backward_passes)) in groups.items():
            if "compile" in options.skip.split(","):
                variants = {name: function for name, function in variants.items() if "compile" not in name}
            for name, function in variants.items():
                if "leaky" not in name:
                    checked(name, function, truth, x[:2, :, :20, :20])
            steps = {name: both_ways(function, x) for name, function in variants.items()}
            for step in steps.values():
                step()
            if options.graphs:
                steps = {name: graphed(step) for name, step in steps.items()}
            times = timed(steps, options, device)
            base = times[next(iter(times))]
            for name, seconds in times.items():
                minimum = (forward_passes + backward_passes) * x.numel() * x.element_size()
                share = [minimum / s / bandwidth for s in seconds]
                where = f"{channels} x {size // stride}²"
                rows.append((group, where, name, spread([1000 * s for s in seconds]), ratio(seconds, base), spread(share)))
    return rows


def in_place_leaky(model: nn.Module) -> nn.Module:
    """Torch's leanest: every activation an in-place Leaky ReLU."""
    for block in model.modules():
        if isinstance(block, ConvBlock):
            block.act, block.activation_name = nn.LeakyReLU(0.1, inplace=True), "in-place"
    return model


def training_step(variant: str, options: argparse.Namespace, size: int, device: torch.device) -> Step:
    """Forward, the scaled recipe's loss, backward and SGD of ``variant``: activation, kind of kernels, memory."""
    act, kind, memory = variant.split(", ")
    torch.manual_seed(0)
    config = load_recipe("scaled", replace(load_model_config(options.model), activation=act.split()[-1]))
    config = replace(config, batch=options.batch, mini_batch=0, image_size=size)
    model = build_network(config.model).to(device).to(memory_format=torch.channels_last).train()
    if act.startswith("in-place"):
        in_place_leaky(model)
    optimizer = build_optimizer(model, config)
    images = torch.rand(options.batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    corner = torch.rand(8 * options.batch, 2) * size * 0.7
    boxes = torch.cat((corner, corner + 8 + torch.rand(len(corner), 2) * size * 0.25), 1)
    owner = torch.arange(len(boxes))[:, None] % options.batch
    targets = torch.cat((owner, torch.randint(config.model.num_classes, owner.shape), boxes), 1).float().to(device)
    dtype = DTYPES[options.dtype]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with ExitStack() as stack:
            stack.enter_context(using_kernels(kind))
            stack.enter_context(lean_memory(memory == "lean"))
            stack.enter_context(torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32))
            maps = model(images)
        detection_loss(maps, model.heads, targets, config).total.backward()
        optimizer.step()

    return step


def inference(variant: str, options: argparse.Namespace, size: int, device: torch.device) -> Step:
    """One image through the folded network; ``variant``: activation, kind of kernels."""
    act, kind = variant.split(", ")
    torch.manual_seed(0)
    config = replace(load_model_config(options.model), activation=act, neck_activation="leaky_relu")
    model = folded(build_network(config).to(device).to(memory_format=torch.channels_last))
    images = torch.rand(1, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with torch.inference_mode(), using_kernels(kind):
            model(images)

    return step


def whole(names: tuple[str, ...], make: Callable[..., Step], options: argparse.Namespace, size: int, device: torch.device):
    """Rows of whole networks: time, ratio to the first, and on CUDA peak memory and its ratio."""
    steps, memory = {}, {}
    for name in names:
        steps[name] = make(name, options, size, device)
        steps[name]()
        if device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            steps[name]()
            wait(device)
            memory[name] = torch.cuda.max_memory_allocated(device) - before
    times = timed(steps, options, device)
    base = names[0]
    for name in names:
        peak = f"{memory[name] / 2**30:.2f} GiB, {memory[name] / memory[base]:.2f}" if memory else "-"
        yield name, f"{size}", spread([1000 * s for s in times[name]]), ratio(times[name], times[base]), peak


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cuda = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--model", default="yolov4" if cuda else "yolov4-n")
    parser.add_argument("--sizes", default="416,608", help="px")
    parser.add_argument("--batch", type=int, default=16 if cuda else 2, help="images")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16" if cuda else "fp32")
    parser.add_argument("--rounds", type=int, default=21 if cuda else 7)
    parser.add_argument("--parts", default="blocks,training,inference")
    parser.add_argument("--skip", default="", help="kinds of kernels and memory to leave out, by commas: compile,lean")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the CPU")
    parser.add_argument("--graphs", action="store_true", help="blocks as CUDA graphs: the GPU's time alone, without launches")
    parser.add_argument("--cpu-time", action="store_true", help="CPU time of all threads instead of the clock")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    sizes = [int(s) for s in options.sizes.split(",")]
    what = f"{options.dtype}, batch {options.batch}, channels_last"
    if "blocks" in options.parts:
        columns = ("pass", "map", "by", "forward + backward, ms", "x first", "share of copy bandwidth")
        note = "Share: the least traffic (alone 2 + 3 passes over the map, with BN 3 + 5) over time, over that of a copy."
        report(f"Activation kernels, {what}", columns, blocks(options, device, sizes[0]), device, note)
        print()
    if "training" in options.parts:
        names = ("in-place leaky_relu, eager, normal", "leaky_relu, auto, normal", "mish, eager, normal")
        names += ("mish, auto, normal", "mish, fused, normal", "mish, compile, normal", "mish, auto, lean")
        names = tuple(name for name in names if not set(name.split(", ")) & set(options.skip.split(",")))
        rows = [row for size in sizes for row in whole(names, training_step, options, size, device)]
        columns = ("backbone, kernels, memory", "px", "ms", "x first", "peak, x first")
        report(f"Training step of {options.model}, {what}", columns, rows, device)
        print()
    if "inference" in options.parts:
        rows = [
            row
            for size in sizes
            for row in whole(("leaky_relu, eager", "mish, eager", "mish, auto"), inference, options, size, device)
        ]
        report(f"Folded {options.model}, one image", ("backbone, kernels", "px", "ms", "x first", "peak, x first"), rows, device)


if __name__ == "__main__":
    main()
