"""How fast each engine is here: interleaved rounds, the stages around the network, and the machine's own peak beside them."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from yolomish.darknet.summary import summarise
from yolomish.drawing.boxes import draw_detections
from yolomish.errors import YolomishError, first_line, unknown_name
from yolomish.inference.darknet_program import DarknetProgram, find_program
from yolomish.inference.detector import Detector
from yolomish.inference.engines import ENGINES, Engine, build_engine
from yolomish.inference.export.onnx_graph import write_graph
from yolomish.inference.export.packages import installed
from yolomish.inference.export.verify import probe_images
from yolomish.networks import Network
from yolomish.networks.scope import swap
from yolomish.ops.decode import decode_above
from yolomish.ops.device import wait
from yolomish.threads import busy_note
from yolomish.types import HeadSpec, InputSpec, SizeHW, size_text
from yolomish.weights.load import LoadedNetwork

PEAK_SIDE = 2048  # of the square matrices whose product is the peak
CALIBRATION_PX = 160
REST_S = 0.05  # before each call: the threads of the engine before it go on spinning for a while
NEEDS = {"onnxruntime": ("onnxruntime", "onnx"), "openvino": ("openvino", "onnx"), "opencv": ("onnx",)}
STAGES = ("read", "resize", "network", "nms", "draw")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of each round of the network alone, for one engine, precision and backbone activation."""

    engine: str
    half: bool
    activation: str
    how: str
    seconds: tuple[float, ...]

    @property
    def name(self) -> str:
        """``openvino bf16``."""
        return f"{self.engine} {'half' if self.half else 'fp32'}"


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """What ``measure`` saw. ``bflops`` are per image (2 x MAC / 1e9); ``peaks`` are GFLOP/s of a matrix product by
    precision; ``stages`` are seconds per image of the default engine in each round."""

    image_size_hw: SizeHW
    batch: int
    threads: int
    clock: str
    bflops: float
    peaks: dict[str, float]
    timings: tuple[Timing, ...]
    stages: dict[str, tuple[float, ...]]
    stages_engine: str
    skipped: dict[str, str]


class OpenCvEngine:
    """OpenCV's DNN module over the same network, to compare with; one call at a time."""

    def __init__(self, network: Network, size_hw: SizeHW) -> None:
        model = write_graph(network, dynamic=False, size_hw=size_hw)
        self.net = cv2.dnn.readNetFromONNX(np.frombuffer(model.SerializeToString(), np.uint8))
        self.outputs = self.net.getUnconnectedOutLayersNames()
        self.input: InputSpec = network.input
        self.heads: tuple[HeadSpec, ...] = network.heads
        self.how = f"OpenCV {cv2.__version__} DNN"

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        self.net.setInput(images.numpy())
        return tuple(torch.from_numpy(out) for out in self.net.forward(self.outputs))


def with_activation(network: Network, activation: str, image: np.ndarray) -> Network:
    """A copy of ``network`` with another activation in its first part, and batch norms that hold its statistics on ``image``,
    so that no value vanishes or explodes; the same network where it has that activation already."""
    part = next(iter(network.parts))
    if network.activations(part) == (activation,):
        return network
    other = copy.deepcopy(network)
    swap(other, (f"{part}={activation}",))
    return calibrate(other, image)


@torch.no_grad()
def calibrate(model: Network, image: np.ndarray) -> Network:
    """``model`` in evaluation mode with the batch norms' statistics of ``image`` (H, W, 3) uint8 RGB."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    side = max(CALIBRATION_PX // model.input.stride, 1) * model.input.stride
    small = cv2.resize(image, (side, side))
    model.train()(model.input.normalise(torch.from_numpy(small).permute(2, 0, 1)[None]))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


def interleaved(
    calls: Sequence[Callable[[], object]],
    rounds: int,
    *,
    device: torch.device = torch.device("cpu"),
    clock: Callable[[], float] = time.perf_counter,
    say: Callable[[str], None] = lambda text: None,
    rest: float = REST_S,
) -> list[list[float]]:
    """Seconds of each call in each round; a round runs all of them in turn, beginning with another each time, each after
    ``rest`` seconds."""
    seconds: list[list[float]] = [[] for _ in calls]
    for i in range(rounds):
        say(f"round {i + 1} of {rounds}")
        for j in [*range(len(calls))][i % len(calls) :] + [*range(len(calls))][: i % len(calls)]:
            time.sleep(rest)
            began = clock()
            calls[j]()
            wait(device)
            seconds[j].append(clock() - began)
    return seconds


def peak_gflops(dtype: torch.dtype, rounds: int, clock: Callable[[], float]) -> float:
    """GFLOP/s of torch's matrix product of ``PEAK_SIDE``² matrices on the CPU, the best round."""
    a, b = (torch.rand(PEAK_SIDE, PEAK_SIDE).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(max(3, rounds)):
        began = clock()
        a @ b
        best = min(best, clock() - began)
    return 2 * PEAK_SIDE**3 / best / 1e9


def _build(name: str, network: Network, size_hw: SizeHW, device: torch.device) -> Engine:
    engine, _, precision = name.partition(":")
    for package in NEEDS.get(engine, ()):
        if not installed(package):
            raise YolomishError(f"{package} is not installed")
    if engine == "opencv":
        if precision:
            raise YolomishError("OpenCV's DNN computes in fp32 on the CPU")
        return OpenCvEngine(network, size_hw)
    return build_engine(engine, network, device=device, half=precision == "half")


def measure(
    loaded: LoadedNetwork,
    *,
    engines: Sequence[str],
    activations: Sequence[str],
    picture: str,
    image: np.ndarray,
    size_hw: SizeHW,
    batch: int,
    rounds: int,
    device: torch.device,
    processor_time: bool = False,
    darknet: str = "",
    say: Callable[[str], None] = lambda text: None,
) -> BenchReport:
    """Time ``engines`` (``name`` or ``name:half``; auto, torch, onnxruntime, openvino, opencv) x ``activations``.

    ``picture`` is the file that ``image`` (H, W, 3) uint8 RGB came from. Every round runs all of them in turn, beginning
    with another each time. What cannot run is in ``skipped`` with its reason. ``processor_time`` counts this process's own
    time, which others on the machine disturb less; with one thread it is what an idle machine would show. ``darknet`` is a
    program of Darknet's that is asked in the same rounds and timed by its own clock (see ``DarknetProgram``).
    """
    program = find_program(darknet) if darknet else None
    if program and (batch > 1 or processor_time or device.type != "cpu"):
        raise YolomishError(
            "--darknet is timed by its own wall clock, one picture at a time, on the CPU: leave --batch, "
            "--processor-time and --device off"
        )
    known = (*ENGINES, "opencv")
    for name in engines:
        if name.partition(":")[0] not in known or name.partition(":")[2] not in ("", "half"):
            raise unknown_name("engine", name, [f"{e}{h}" for e in known for h in ("", ":half")])
    network = loaded.network
    network.input.check_size(size_hw)
    clock = time.process_time if processor_time else time.perf_counter
    images = probe_images(network, image, size_hw=size_hw, dynamic=False)[0].repeat(batch, 1, 1, 1)
    ready: list[tuple[str, str, Engine]] = []
    skipped: dict[str, str] = {}
    with contextlib.ExitStack() as opened:

        def build(name: str, variant: Network) -> Engine:
            if program is None or name != "darknet":
                return _build(name, variant, size_hw, device)
            asked = dataclasses.replace(loaded, network=variant)
            theirs = DarknetProgram(program, asked, image, size_hw, threads=torch.get_num_threads())
            opened.callback(theirs.close)
            return theirs

        for activation in activations:
            variant = with_activation(network, activation, image)
            for name in (*engines, "darknet") if program else engines:
                say(f"preparing {name} with {activation}")
                try:
                    engine = build(name, variant)
                    engine(images)
                except (YolomishError, cv2.error) as error:
                    skipped[name] = first_line(error, 200)
                    continue
                ready.append((name, activation, engine))
        if not ready:
            raise YolomishError(f"no engine can run: {'; '.join(f'{k}: {v}' for k, v in skipped.items())}")
        if note := busy_note():
            say(note)
        calls = [functools.partial(engine, images) for _, _, engine in ready]
        seconds = interleaved(calls, rounds, device=device, clock=clock, say=say)
    own = [e.seconds[-rounds:] if isinstance(e, DarknetProgram) else s for (_, _, e), s in zip(ready, seconds, strict=True)]
    detector = Detector(loaded, image_size=size_hw, conf=0.001, max_det=100, device=str(device))
    stages = _stages(detector, picture, rounds, clock)
    halves = torch.bfloat16 if device.type == "cpu" else torch.float16
    peaks = {"fp32": peak_gflops(torch.float32, rounds, clock)} if device.type == "cpu" else {}
    if device.type == "cpu" and any(name.endswith(":half") for name, _, _ in ready):
        peaks["half"] = peak_gflops(halves, rounds, clock)
    return BenchReport(
        image_size_hw=size_hw,
        batch=batch,
        threads=torch.get_num_threads(),
        clock="processor time" if processor_time else "wall time",
        bflops=summarise(network.config, size_hw).bflops,
        peaks=peaks,
        timings=tuple(
            Timing(
                engine=name.partition(":")[0],
                half=name.endswith(":half"),
                activation=activation,
                how=engine.how,
                seconds=tuple(times),
            )
            for (name, activation, engine), times in zip(ready, own, strict=True)
        ),
        stages=stages[1],
        stages_engine=stages[0],
        skipped=skipped,
    )


def _stages(
    detector: Detector, picture: str, rounds: int, clock: Callable[[], float]
) -> tuple[str, dict[str, tuple[float, ...]]]:
    """Seconds of each stage on one picture in each round, at the evaluation's confidence of 0.001."""
    from yolomish.data.images import read_image

    pipeline = detector.pipeline
    times: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for i in range(rounds + 1):
        marks = [clock()]
        image = read_image(picture)
        marks.append(clock())
        images, resizes = pipeline.prepare([image])
        marks.append(clock())
        maps = detector.engine(images)
        marks.append(clock())
        with torch.inference_mode():
            (found,) = pipeline.finish(decode_above(maps, detector.engine.heads, pipeline.protocol.conf), resizes)
        marks.append(clock())
        draw_detections(image, found, detector.names)
        marks.append(clock())
        for stage, (a, b) in zip(STAGES, itertools.pairwise(marks), strict=True):
            if i:  # the first round warms up
                times[stage].append(b - a)
    return detector.engine.how, {stage: tuple(values) for stage, values in times.items()}


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper quartile."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def as_table(report: BenchReport) -> list[str]:
    """The report in lines of Markdown."""
    lines = [
        f"{size_text(report.image_size_hw)} px, batch {report.batch}, {report.threads} threads, {report.clock}; "
        f"{report.bflops:.1f} BFLOPs per image; median [quartiles] of {len(report.timings[0].seconds)} interleaved rounds",
        "",
        "| engine | activation | ms per batch | images/s | of the peak | mish / this activation |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for timing in report.timings:
        low, middle, high = (1000 * v for v in quartiles(timing.seconds))
        peak = report.peaks.get("half" if timing.half else "fp32")
        share = f"{100 * report.bflops * report.batch / (middle / 1000) / peak:.0f} %" if peak else ""
        mish = [t for t in report.timings if (t.name, t.activation) == (timing.name, "mish")]
        against = ""
        if mish and timing.activation != "mish":
            least, ratio, most = quartiles([m / o for m, o in zip(mish[0].seconds, timing.seconds, strict=True)])
            against = f"{ratio:.3f} [{least:.3f}, {most:.3f}]"
        lines.append(
            f"| {timing.name} | {timing.activation} | {middle:.1f} [{low:.1f}, {high:.1f}] | "
            f"{1000 * report.batch / middle:.2f} | {share} | {against} |"
        )
    lines += [f"| {name} | | not run: {reason} | | | |" for name, reason in report.skipped.items()]
    if report.peaks:
        peaks = ", ".join(f"{value:.0f} GFLOP/s in {name}" for name, value in report.peaks.items())
        lines += ["", f"peak: {peaks} ({PEAK_SIDE}² matrix product in torch, best of the rounds)"]
    stages = {name: quartiles(values)[1] for name, values in report.stages.items()}
    total = sum(stages.values())
    parts = ", ".join(f"{name} {1000 * v:.1f} ms ({100 * v / total:.1f} %)" for name, v in stages.items())
    lines += ["", f"one picture at confidence 0.001 with {report.stages_engine}: {parts}"]
    return lines
