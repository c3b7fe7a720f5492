"""Darknet's ``.cfg`` as sections: every key is accounted for, or refused with its file and line.

Darknet itself (src/parser.c, src/option_list.c) reads what it knows and is silent about the rest, takes numbers as far as
they go and the first of a key's two values; here each of these is an error that names both lines and the way out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from yolomish.errors import YolomishError, first_line, unknown_name
from yolomish.files import read_text

INTEGER = re.compile(r"[+-]?\d{1,9}")
NUMBER = re.compile(r"[+-]?(\d{1,30}(\.\d*)?|\.\d{1,30})([eE][+-]?\d{1,3})?")
MOST = 1 << 20  # filters, classes, sides: nothing real is larger, and sizes stay far from 64 bits


@dataclass(frozen=True, kw_only=True)
class Keys:
    """The keys of one kind of section, by what they change here.

    Args:
        network: What is computed.
        inference: How images get in and detections out.
        training: The loss, the augmentation, the rates: kept in the text, for a recipe made of it.
        nothing: Speed, memory, tracking and display in Darknet.
        only_zero: Not supported: any value but 0 is refused.
        missing: Those that a section cannot do without.
    """

    network: str = ""
    inference: str = ""
    training: str = ""
    nothing: str = ""
    only_zero: str = ""
    missing: str = ""

    def effect(self, key: str) -> str:
        """Which of the groups ``key`` is in; empty for none."""
        return next(
            (n for n in ("network", "inference", "training", "nothing", "only_zero") if key in getattr(self, n).split()), ""
        )

    def known(self) -> list[str]:
        """All keys."""
        return " ".join((self.network, self.inference, self.training, self.nothing, self.only_zero)).split()


# parse_network_cfg_custom reads these in every section
ANYWHERE = Keys(
    training="learning_rate clip onlyforward dont_update burnin_update stopbackward train_only_bn",
    nothing="stream wait_stream",
    only_zero="dontload dontloadscales",
)
YOLO_TRAINING = (
    "max max_delta counters_per_class label_smooth_eps objectness_smooth iou_normalizer obj_normalizer cls_normalizer "
    "delta_normalizer iou_loss iou_thresh_kind jitter resize focal_loss ignore_thresh truth_thresh iou_thresh random "
    "uc_normalizer beta1"
)
KEYS: dict[str, Keys] = {
    "net": Keys(
        network="width height channels",
        inference="letter_box",
        training=(
            "batch subdivisions learning_rate learning_rate_min momentum decay burn_in power max_batches max_epochs policy steps "
            "scales seq_scales step scale gamma sgdr_cycle sgdr_mult angle aspect saturation exposure hue flip blur "
            "gaussian_noise mixup cutmix mosaic mosaic_bound resize_step max_crop min_crop label_smooth_eps ema_alpha "
            "adversarial_lr attention adam B1 B2 eps dynamic_minibatch unsupervised weights_reject_freq equidistant_point "
            "badlabels_rejection_percentage num_sigmas_reject_badlabels sequential_subdivisions contrastive contrastive_jit_flip "
            "contrastive_color"
        ),
        nothing=(
            "inputs seen time_steps track augment_speed try_fix_nan use_cuda_graph loss_scale optimized_memory "
            "workspace_size_limit_MB max_chart_loss show_receptive_field"
        ),
        missing="width height channels",
    ),
    "convolutional": Keys(
        network=(
            "filters size stride stride_x stride_y pad padding groups dilation batch_normalize activation antialiasing "
            "share_index"
        ),
        training="assisted_excitation grad_centr angle dot",
        only_zero="xnor binary bin_output cbn sway rotate stretch stretch_sway flipped reverse coordconv",
        missing="filters size",
    ),
    "connected": Keys(network="output activation batch_normalize", missing="output"),
    "shortcut": Keys(network="from activation weights_type weights_normalization", missing="from"),
    "route": Keys(network="layers groups group_id", missing="layers"),
    "maxpool": Keys(
        network="size stride stride_x stride_y padding maxpool_depth out_channels antialiasing", only_zero="maxpool_zero_nonmax"
    ),
    "local_avgpool": Keys(network="size stride stride_x stride_y padding"),
    "avgpool": Keys(),
    "upsample": Keys(network="stride scale"),
    "reorg": Keys(network="stride", only_zero="reverse"),
    "reorg3d": Keys(network="stride", only_zero="reverse"),
    "scale_channels": Keys(network="from scale_wh activation", missing="from"),
    "sam": Keys(network="from activation", missing="from"),
    "dropout": Keys(training="probability dropblock dropblock_size_rel dropblock_size_abs"),
    "batchnorm": Keys(),
    "activation": Keys(network="activation", missing="activation"),
    "empty": Keys(),
    "softmax": Keys(network="temperature groups", training="noloss", only_zero="spatial tree"),
    "cost": Keys(training="type scale ratio"),
    "yolo": Keys(
        network="mask num classes",
        inference="anchors scale_x_y new_coords nms_kind beta_nms",
        training=YOLO_TRAINING,
        nothing=("show_details track_history_size sim_thresh dets_for_track dets_for_show track_ciou_norm embedding_layer map"),
        missing="mask anchors classes",
    ),
}
ALIASES = {
    "network": "net",
    "conv": "convolutional",
    "conn": "connected",
    "max": "maxpool",
    "avg": "avgpool",
    "local_avg": "local_avgpool",
    "soft": "softmax",
    "silence": "empty",
}
RECURRENT = "is recurrent: yolomish has networks of single images alone"
REFUSED = {
    "region": "is YOLOv2's head: yolomish has [yolo], the head of YOLOv3 and later",
    "detection": "is YOLOv1's head: yolomish has [yolo], the head of YOLOv3 and later",
    "Gaussian_yolo": "is the head of Gaussian YOLOv3: yolomish has [yolo]",
    "contrastive": "trains embeddings for tracking: yolomish detects and classifies single images",
    **dict.fromkeys(("rnn", "gru", "lstm", "crnn", "conv_lstm", "history"), RECURRENT),
    **dict.fromkeys(("crop", "local", "normalization", "lrn", "implicit"), "is not supported"),
}
NMS_KINDS = {"default": "iou", "greedynms": "greedy-diou", "diounms": "diou"}  # as ops.nms.Selection calls them
WORDS = {
    "policy": ("constant", "step", "exp", "poly", "steps", "sigmoid", "random", "sgdr"),
    "iou_loss": ("mse", "iou", "giou", "diou", "ciou"),
    "iou_thresh_kind": ("iou", "giou", "diou", "ciou"),
    "nms_kind": tuple(NMS_KINDS),
    "weights_type": ("none", "per_feature", "per_layer", "per_channel"),
    "weights_normalization": ("none", "relu", "avg_relu", "softmax"),
    "type": ("sse", "masked", "L1", "seg", "smooth", "wgan"),
}
FREE = ("activation", "map", "tree")


@dataclass(frozen=True, kw_only=True)
class Option:
    """A value as written, and its line."""

    value: str
    line: int


@dataclass(frozen=True, kw_only=True)
class Section:
    """One ``[kind]`` with its options; ``where`` is the file's name and ``line`` that of its header."""

    kind: str
    where: str
    line: int
    options: dict[str, Option] = field(default_factory=dict)

    def fault(self, key: str, what: str) -> YolomishError:
        """The error of an option, with its line and value; of the section where it has no such option."""
        option = self.options.get(key)
        if option is None:
            return YolomishError(f"{self.where}:{self.line}: [{self.kind}] {what}")
        return YolomishError(f"{self.where}:{option.line}: [{self.kind}] {key}={first_line(option.value, 60)} {what}")

    def text(self, key: str, default: str = "") -> str:
        """The value as written."""
        return self.options[key].value if key in self.options else default

    def integer(self, key: str, default: int, low: int = 0, high: int = MOST) -> int:
        """A whole number from ``low`` to ``high``."""
        if key not in self.options:
            return default
        value = self.text(key)
        if not INTEGER.fullmatch(value) or not low <= int(value) <= high:
            raise self.fault(key, f"must be a whole number from {low} to {high}")
        return int(value)

    def number(self, key: str, default: float) -> float:
        """A finite number."""
        return self.numbers(key)[0] if key in self.options else default

    def numbers(self, key: str) -> tuple[float, ...]:
        """Finite numbers, separated by commas."""
        parts = [part for part in re.split(r"[,\s]+", self.text(key)) if part]
        if not parts or not all(NUMBER.fullmatch(part) and math.isfinite(float(part)) for part in parts):
            raise self.fault(key, "must be finite numbers, separated by commas")
        return tuple(map(float, parts))

    def integers(self, key: str) -> tuple[int, ...]:
        """Whole numbers, separated by commas."""
        numbers = self.numbers(key)
        if not all(n.is_integer() and abs(n) <= MOST for n in numbers):
            raise self.fault(key, "must be whole numbers, separated by commas")
        return tuple(map(int, numbers))

    def changed(self, **values: object) -> Section:
        """A copy with other values."""
        changes = {key: Option(value=str(value), line=self.line) for key, value in values.items()}
        return replace(self, options=self.options | changes)


@dataclass(frozen=True, kw_only=True)
class Cfg:
    """The sections of a cfg, ``[net]`` first, and what is to be said of it."""

    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()


def load_cfg(path: str | Path) -> Cfg:
    """The sections of a file: UTF-8, UTF-16 with its mark, or with comments in any code page; YolomishError with the line."""
    text = read_text(path, other="latin-1")  # keys and values are ASCII; comments are passed over
    if "\0" in text:
        raise YolomishError(f"{path} holds zero bytes: a .cfg is text, is this another file?")
    return parse_cfg(text, str(path))


def parse_cfg(text: str, where: str) -> Cfg:
    """The sections of a cfg's text, all keys and values checked; ``where`` names the file in errors."""
    sections: list[Section] = []
    notes: list[str] = []
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        line = re.split("[#;]", line, maxsplit=1)[0].strip()
        place = f"{where}:{number}"
        if not line:
            continue
        if line.startswith("[") and line.endswith("]"):
            sections.append(_begin(line[1:-1].strip(), where, number))
            if sections[0].kind != "net":
                break
        elif "=" in line and sections:
            key, _, value = line.partition("=")
            _add(sections[-1], "".join(key.split()), Option(value=value.strip(), line=number), notes)
        else:
            raise YolomishError(f"{place}: {first_line(line, 60)!r} is neither [section] nor key=value")
    if not sections or sections[0].kind != "net":
        raise YolomishError(f"{where} does not begin with [net]: not a Darknet cfg")
    for section in sections:
        for key in KEYS[section.kind].missing.split():
            if key not in section.options:
                raise YolomishError(f"{where}:{section.line}: [{section.kind}] lacks {key}=")
    for section in sections[1:]:
        if section.kind == "net":
            raise YolomishError(f"{where}:{section.line}: [net] stands again: a cfg has one, at its beginning")
        if section.kind == "yolo" and 2 * section.integer("num", 1) != (count := len(section.numbers("anchors"))):
            notes.append(
                f"{where}:{section.line}: [yolo] num={section.text('num', '1')}, {count / 2:g} anchors are listed and taken"
            )
    return Cfg(sections=tuple(sections), notes=(*notes, *_without_effect(sections)))


def _begin(kind: str, where: str, line: int) -> Section:
    kind = ALIASES.get(kind, kind)
    if kind in REFUSED:
        raise YolomishError(f"{where}:{line}: [{kind}] {REFUSED[kind]}")
    if kind == "route_lhalf":  # WongKinYiu/PyTorch_YOLOv4 models/models.py: the first half of the channels
        halves = {"groups": Option(value="2", line=line), "group_id": Option(value="0", line=line)}
        return Section(kind="route", where=where, line=line, options=halves)
    if kind not in KEYS:
        raise YolomishError(f"{where}:{line}: {unknown_name('section', first_line(kind, 40), KEYS)}")
    return Section(kind=kind, where=where, line=line)


def _add(section: Section, key: str, option: Option, notes: list[str]) -> None:
    """Put an option into a section, or raise."""
    kind, place = section.kind, f"{section.where}:{option.line}"
    effect = KEYS[kind].effect(key) or ANYWHERE.effect(key)
    if not effect:
        known = [*KEYS[kind].known(), *ANYWHERE.known()]
        raise YolomishError(f"{place}: {unknown_name(f'key of [{kind}]', first_line(key, 40), known)}")
    if key in section.options:
        first = section.options[key]
        values = first_line(first.value, 40), first_line(option.value, 40)
        both = f"[{kind}] {key} stands twice: {values[0]} in line {first.line}, {values[1]} here"
        if effect != "training":
            raise YolomishError(f"{place}: {both}; leave one (Darknet takes the first)")
        notes.append(f"{place}: {both}; the first is taken, as Darknet does")
        return
    section.options[key] = option
    if key in WORDS:
        if option.value not in WORDS[key]:
            raise YolomishError(f"{place}: [{kind}] {unknown_name(key, first_line(option.value, 40), WORDS[key])}")
    elif effect == "only_zero":
        if option.value != "0":
            raise section.fault(key, "is not supported: without it this is another network")
    elif key not in FREE:
        section.numbers(key)
        if re.search(r"[^,\s]\s+[^,\s]", option.value):
            notes.append(f"{place}: [{kind}] {key}: a comma is missing between two numbers (Darknet reads them as one)")


def _without_effect(sections: Sequence[Section]) -> list[str]:
    """One note that lists the keys that change nothing here, each once."""
    found: dict[str, int] = {}
    for section in sections:
        for key, option in section.options.items():
            if (KEYS[section.kind].effect(key) or ANYWHERE.effect(key)) == "nothing":
                found.setdefault(f"[{section.kind}] {key}", option.line)
    if not found:
        return []
    return [f"{sections[0].where}: without effect here: " + ", ".join(f"{name} (line {line})" for name, line in found.items())]


def cfg_text(sections: Sequence[Section]) -> str:
    """Sections as a cfg's text, which ``parse_cfg`` reads again."""
    blocks = ("\n".join([f"[{s.kind}]", *(f"{key}={option.value}" for key, option in s.options.items())]) for s in sections)
    return "\n\n".join(blocks) + "\n"
