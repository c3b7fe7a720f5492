"""How fast each engine is here: interleaved rounds, the stages around the network, and the machine's own peak beside them."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from yolomish.data.transforms import undo_resize
from yolomish.drawing.boxes import draw_detections
from yolomish.errors import YolomishError, unknown_name
from yolomish.inference.detector import Detector
from yolomish.inference.engines import ENGINES, Engine, build_engine
from yolomish.inference.export.onnx_graph import write_graph
from yolomish.inference.export.packages import installed
from yolomish.inference.export.verify import probe_images
from yolomish.networks import YOLOv4, build_network
from yolomish.networks.summary import summarise
from yolomish.ops.device import wait
from yolomish.ops.nms import postprocess
from yolomish.types import HeadSpec
from yolomish.weights.load import LoadedNetwork

PEAK_SIDE = 2048  # of the square matrices whose product gives the peak
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
    """What ``measure`` saw. ``bflops`` are an image's (2 x MAC / 1e9); ``peaks`` are GFLOP/s of a matrix product by
    precision; ``stages`` are seconds an image of the default engine in each round."""

    image_size: int
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

    def __init__(self, network: YOLOv4, image_size: int) -> None:
        model = write_graph(network, dynamic=False, image_size=image_size)
        self.net = cv2.dnn.readNetFromONNX(np.frombuffer(model.SerializeToString(), np.uint8))
        self.outputs = self.net.getUnconnectedOutLayersNames()
        self.heads: tuple[HeadSpec, ...] = network.heads
        self.how = f"OpenCV {cv2.__version__} DNN"

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        self.net.setInput(images.numpy())
        return tuple(torch.from_numpy(out) for out in self.net.forward(self.outputs))


@torch.no_grad()
def with_activation(network: LoadedNetwork, activation: str, image: np.ndarray) -> LoadedNetwork:
    """``network`` with another backbone activation and batch norms that hold its statistics on ``image``, so that no value
    vanishes or explodes; the same network where it has that activation already."""
    if activation == network.model.config.activation:
        return network
    model = build_network(dataclasses.replace(network.model.config, activation=activation))
    model.load_state_dict(network.model.state_dict(), strict=False)
    return dataclasses.replace(network, model=calibrate(model, image))


@torch.no_grad()
def calibrate(model: YOLOv4, image: np.ndarray) -> YOLOv4:
    """``model`` in evaluation mode with the batch norms' statistics of ``image`` (H, W, 3) uint8 RGB."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    small = cv2.resize(image, (CALIBRATION_PX, CALIBRATION_PX))
    model.train()(torch.from_numpy(small).permute(2, 0, 1)[None].float() / 255)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


def peak_gflops(dtype: torch.dtype, rounds: int, clock: Callable[[], float]) -> float:
    """GFLOP/s of torch's matrix product of ``PEAK_SIDE``² matrices on the CPU, the best round."""
    a, b = (torch.rand(PEAK_SIDE, PEAK_SIDE).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(max(3, rounds)):
        began = clock()
        a @ b
        best = min(best, clock() - began)
    return 2 * PEAK_SIDE**3 / best / 1e9


def _build(name: str, network: YOLOv4, image_size: int, device: torch.device) -> Engine:
    engine, _, precision = name.partition(":")
    for package in NEEDS.get(engine, ()):
        if not installed(package):
            raise YolomishError(f"{package} is not installed")
    if engine == "opencv":
        if precision:
            raise YolomishError("OpenCV's DNN computes in fp32 on the CPU")
        return OpenCvEngine(network, image_size)
    return build_engine(engine, network, device=device, half=precision == "half")


def measure(
    network: LoadedNetwork,
    *,
    engines: Sequence[str],
    activations: Sequence[str],
    picture: str,
    image: np.ndarray,
    image_size: int,
    batch: int,
    rounds: int,
    device: torch.device,
    processor_time: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> BenchReport:
    """Time ``engines`` (``name`` or ``name:half``; auto, torch, onnxruntime, openvino, opencv) x ``activations``.

    ``picture`` is the file that ``image`` (H, W, 3) uint8 RGB came from. Every round runs all of them in turn, beginning
    with another each time. What cannot run is in ``skipped`` with its reason. ``processor_time`` counts this process's own
    time, which others on the machine disturb less; with one thread it is what an idle machine would show.
    """
    known = (*ENGINES, "opencv")
    for name in engines:
        if name.partition(":")[0] not in known or name.partition(":")[2] not in ("", "half"):
            raise unknown_name("engine", name, [f"{e}{h}" for e in known for h in ("", ":half")])
    clock = time.process_time if processor_time else time.perf_counter
    images = probe_images(network, image, image_size=image_size, dynamic=False)[0].repeat(batch, 1, 1, 1)
    ready: list[tuple[str, str, Engine]] = []
    skipped: dict[str, str] = {}
    for activation in activations:
        variant = with_activation(network, activation, image).model
        for name in engines:
            say(f"preparing {name} with {activation}")
            try:
                engine = _build(name, variant, image_size, device)
                engine(images)
            except (YolomishError, cv2.error) as error:
                skipped[name] = str(error).strip().splitlines()[0][:160]
                continue
            ready.append((name, activation, engine))
    if not ready:
        raise YolomishError(f"no engine can run: {'; '.join(f'{k}: {v}' for k, v in skipped.items())}")
    seconds: list[list[float]] = [[] for _ in ready]
    for i in range(rounds):
        say(f"round {i + 1} of {rounds}")
        for j in [*range(len(ready))][i % len(ready) :] + [*range(len(ready))][: i % len(ready)]:
            time.sleep(REST_S)
            began = clock()
            ready[j][2](images)
            wait(device)
            seconds[j].append(clock() - began)
    base = dataclasses.replace(network, image_size=image_size)
    stages = _stages(Detector(base, conf=0.001, max_det=100, device=str(device)), picture, rounds, clock)
    halves = torch.bfloat16 if device.type == "cpu" else torch.float16
    peaks = {"fp32": peak_gflops(torch.float32, rounds, clock)} if device.type == "cpu" else {}
    if device.type == "cpu" and any(name.endswith(":half") for name, _, _ in ready):
        peaks["half"] = peak_gflops(halves, rounds, clock)
    return BenchReport(
        image_size=image_size,
        batch=batch,
        threads=torch.get_num_threads(),
        clock="processor time" if processor_time else "wall time",
        bflops=summarise(network.model.config, image_size).bflops,
        peaks=peaks,
        timings=tuple(
            Timing(
                engine=name.partition(":")[0],
                half=name.endswith(":half"),
                activation=activation,
                how=engine.how,
                seconds=tuple(times),
            )
            for (name, activation, engine), times in zip(ready, seconds, strict=True)
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

    times: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for i in range(rounds + 1):
        marks = [clock()]
        image = read_image(picture)
        marks.append(clock())
        images, resizes = detector.prepare([image])
        marks.append(clock())
        maps = detector.engine(images)
        marks.append(clock())
        with torch.inference_mode():
            (found,) = postprocess(
                maps, detector.engine.heads, conf=detector.conf, iou=detector.iou, kind=detector.nms, max_det=detector.max_det
            )
            found = undo_resize(found, resizes[0]).to("cpu")
        marks.append(clock())
        draw_detections(image, found, detector.names)
        marks.append(clock())
        for stage, (a, b) in zip(STAGES, itertools.pairwise(marks), strict=True):
            if i:  # the first round warms up
                times[stage].append(b - a)
    return detector.engine.how, {stage: tuple(values) for stage, values in times.items()}


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median and the quartiles around it."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, low, high


def as_table(report: BenchReport) -> list[str]:
    """The report in lines of Markdown."""
    lines = [
        f"{report.image_size} px, batch {report.batch}, {report.threads} threads, {report.clock}; "
        f"{report.bflops:.1f} BFLOPs an image; median [quartiles] of {len(report.timings[0].seconds)} interleaved rounds",
        "",
        "| engine | activation | ms a batch | images/s | of the peak | mish / this activation |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for timing in report.timings:
        middle, low, high = (1000 * v for v in spread(timing.seconds))
        peak = report.peaks.get("half" if timing.half else "fp32")
        share = f"{100 * report.bflops * report.batch / (middle / 1000) / peak:.0f} %" if peak else ""
        mish = [t for t in report.timings if (t.name, t.activation) == (timing.name, "mish")]
        against = ""
        if mish and timing.activation != "mish":
            ratio, least, most = spread([m / o for m, o in zip(mish[0].seconds, timing.seconds, strict=True)])
            against = f"{ratio:.3f} [{least:.3f}, {most:.3f}]"
        lines.append(
            f"| {timing.name} | {timing.activation} | {middle:.1f} [{low:.1f}, {high:.1f}] | "
            f"{1000 * report.batch / middle:.2f} | {share} | {against} |"
        )
    lines += [f"| {name} | | not run: {reason} | | | |" for name, reason in report.skipped.items()]
    if report.peaks:
        peaks = ", ".join(f"{value:.0f} GFLOP/s in {name}" for name, value in report.peaks.items())
        lines += ["", f"peak: {peaks} ({PEAK_SIDE}² matrix product in torch, best of the rounds)"]
    total = sum(spread(values)[0] for values in report.stages.values())
    parts = ", ".join(f"{k} {1000 * spread(v)[0]:.1f} ms ({100 * spread(v)[0] / total:.1f} %)" for k, v in report.stages.items())
    lines += ["", f"one picture at confidence 0.001 with {report.stages_engine}: {parts}"]
    return lines
