"""A ``ModelConfig`` as a Darknet ``.cfg`` that Darknet and OpenCV read: cfg/yolov4.cfg's sections at any width and depth."""

from __future__ import annotations

from pathlib import Path

from yolomish.activations import darknet_activations, find_activation
from yolomish.config import ModelConfig, check_model
from yolomish.errors import YolomishError
from yolomish.files import write_text
from yolomish.networks.cspdarknet import CHANNELS, RESIDUALS, STEM_CHANNELS, scaled_channels
from yolomish.types import SizeHW


class _Writer:
    """Sections in order; layer indices count from 0 after [net], as routes do."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self.sections: list[str] = []

    def add(self, kind: str, **options: object) -> int:
        lines = [f"[{kind}]", *(f"{key}={value}" for key, value in options.items())]
        self.sections.append("\n".join(lines))
        return len(self.sections) - 1

    def conv(self, filters: int, size: int, activation: str, stride: int = 1) -> int:
        return self.add(
            "convolutional", batch_normalize=1, filters=filters, size=size, stride=stride, pad=1, activation=activation
        )

    def route(self, *layers: int) -> int:
        return self.add("route", layers=",".join(map(str, layers)))

    def run(self, channels: int, length: int, activation: str) -> int:
        for i in range(length):
            last = self.conv(*((channels, 1) if i % 2 == 0 else (2 * channels, 3)), activation)
        return last

    def backbone(self, activation: str) -> list[int]:
        """CSPDarknet53; gives the last layer of each stage."""
        ends, c_in = [], scaled_channels(STEM_CHANNELS, self.config.width)
        self.conv(c_in, 3, activation)
        for i, (channels, residuals) in enumerate(zip(CHANNELS, RESIDUALS, strict=True)):
            c_out = scaled_channels(channels, self.config.width)
            inner, hidden = (c_out, c_in) if i == 0 else (c_out // 2, c_out // 2)
            down = self.conv(c_out, 3, activation, 2)
            bypass = self.conv(inner, 1, activation)
            self.route(down)
            self.conv(inner, 1, activation)
            for _ in range(max(1, round(residuals * self.config.depth))):
                self.conv(hidden, 1, activation)
                self.conv(inner, 3, activation)
                self.add("shortcut", **{"from": -3}, activation="linear")
            post = self.conv(inner, 1, activation)
            self.route(post, bypass)
            ends.append(self.conv(c_out, 1, activation))
            c_in = c_out
        return ends

    def neck_and_heads(self, c3_end: int, c4_end: int, activation: str) -> None:
        """SPP, PANet and the three heads in cfg/yolov4.cfg's order."""
        n3, n4, n5 = (scaled_channels(c, self.config.width) // 2 for c in CHANNELS[2:])
        before = self.run(n5, 3, activation)
        pools: list[int] = []
        for size in (5, 9, 13):
            if pools:
                self.route(before)
            pools.append(self.add("maxpool", stride=1, size=size))
        self.route(*reversed(pools), before)
        t5 = self.run(n5, 3, activation)
        t4 = self.top_down(c4_end, n4, activation)
        top3 = self.top_down(c3_end, n3, activation)
        self.head(0, n3, activation)
        bottom4 = self.bottom_up(top3, t4, n4, activation)
        self.head(1, n4, activation)
        self.bottom_up(bottom4, t5, n5, activation)
        self.head(2, n5, activation)

    def top_down(self, lateral: int, channels: int, activation: str) -> int:
        self.conv(channels, 1, activation)
        up = self.add("upsample", stride=2)
        self.route(lateral)
        beside = self.conv(channels, 1, activation)
        self.route(beside, up)
        return self.run(channels, 5, activation)

    def bottom_up(self, below: int, beside: int, channels: int, activation: str) -> int:
        self.route(below)
        down = self.conv(channels, 3, activation, 2)
        self.route(down, beside)
        return self.run(channels, 5, activation)

    def head(self, index: int, channels: int, activation: str) -> None:
        config, squared = self.config, self.config.box_form == "squared"
        self.conv(2 * channels, 3, activation)
        outputs = 3 * (5 + config.num_classes)
        self.add(
            "convolutional", size=1, stride=1, pad=1, filters=outputs, activation="logistic" if squared else "linear"
        )  # the squared form takes σ(t) of all channels, so Darknet lets the convolution apply it
        self.add(
            "yolo",
            mask=",".join(str(3 * index + i) for i in range(3)),
            anchors=", ".join(f"{w:g},{h:g}" for w, h in config.anchors),
            classes=config.num_classes,
            num=9,
            scale_x_y=f"{config.scale_xy[index]:g}",
            **({"new_coords": 1} if squared else {}),
            jitter=".3",
            ignore_thresh=".7",
            truth_thresh=1,
            **({"random": 1} if index == 2 else {}),
            iou_thresh=0.213,
            cls_normalizer=1.0,
            iou_normalizer=0.07,
            iou_loss="ciou",
            nms_kind="greedynms",
            beta_nms=0.6,
            max_delta=5,
        )


def cfg_text(config: ModelConfig, size_hw: SizeHW | None = None) -> str:
    """The cfg of ``config`` at a network size in px (None: the model's own), with cfg/yolov4.cfg's training options.

    YolomishError where Darknet has no such activation.
    """
    check_model(config)
    names = []
    for activation in (config.activation, config.neck_activation):
        name = find_activation(activation).darknet
        if not name:
            known = ", ".join(sorted(record.name for record in darknet_activations().values()))
            raise YolomishError(f"Darknet has no activation {activation!r}; it has {known}")
        names.append(name)
    height, width = size_hw or config.image_size
    writer = _Writer(config)
    ends = writer.backbone(names[0])
    writer.neck_and_heads(ends[2], ends[3], names[1])
    net = (
        f"[net]\nbatch=64\nsubdivisions=8\nwidth={width}\nheight={height}\nchannels=3\nmomentum=0.949\ndecay=0.0005\nangle=0\n"
        "saturation=1.5\nexposure=1.5\nhue=.1\nlearning_rate=0.0013\nburn_in=1000\nmax_batches=500500\npolicy=steps\n"
        "steps=400000,450000\nscales=.1,.1\nmosaic=1"
    )
    return "\n\n".join([net, *writer.sections]) + "\n"


def write_cfg(path: str | Path, config: ModelConfig, size_hw: SizeHW | None = None) -> None:
    """Write ``cfg_text`` to ``path``, whole or not at all."""
    write_text(path, cfg_text(config, size_hw))
