"""Darknet's ``.cfg`` of the yolov4 family: classes, anchors, sizes and activations as a ``ModelConfig``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from yolomish.activations import darknet_activations
from yolomish.config import ModelConfig, check_model
from yolomish.errors import YolomishError, unknown_name

YOLOV4_SECTIONS = {"convolutional": 110, "shortcut": 23, "route": 21, "maxpool": 3, "upsample": 2, "yolo": 3}
BACKBONE_CONVOLUTIONS = 72


@dataclass(frozen=True, kw_only=True)
class Section:
    """One ``[kind]`` with its options as written, and the line of its header."""

    kind: str
    options: dict[str, str]
    line: int


def parse_cfg(path: str | Path) -> list[Section]:
    """The sections of a cfg in order; YolomishError with file and line on anything that is not key=value."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise YolomishError(f"{path} cannot be read as a Darknet cfg: {error}") from None
    sections: list[Section] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.split("#")[0].split(";")[0].strip()
        if not line:
            continue
        if line.startswith("[") and line.endswith("]"):
            sections.append(Section(kind=line[1:-1].strip(), options={}, line=number))
        elif "=" in line and sections:
            key, _, value = line.partition("=")
            sections[-1].options[key.strip()] = value.strip()
        else:
            raise YolomishError(f"{path}:{number}: neither [section] nor key=value: {line!r}")
    if not sections or sections[0].kind not in ("net", "network"):
        raise YolomishError(f"{path} does not begin with [net]: not a Darknet cfg")
    return sections


def _one(path: str | Path, what: str, values: list[str]) -> str:
    if len(set(values)) != 1:
        raise YolomishError(f"{path}: {what} differ: {dict(Counter(values))}; only one value for all is supported")
    known = darknet_activations()
    if values[0] not in known:
        raise YolomishError(f"{path}: {unknown_name('activation', values[0], known)}")
    return known[values[0]].name


def read_cfg(path: str | Path) -> ModelConfig:
    """The ModelConfig of a cfg that has yolov4.cfg's structure, at width 1 and depth 1.

    Other structures (yolov3, tiny, csp) are refused by name of what differs. ``image_size`` is the cfg's height and width.
    """
    sections = parse_cfg(path)
    counts = Counter(s.kind for s in sections[1:])
    for kind in {**YOLOV4_SECTIONS, **counts}:
        if counts[kind] != YOLOV4_SECTIONS.get(kind, 0):
            raise YolomishError(
                f"{path} is not of yolov4.cfg's structure: {counts[kind]} [{kind}] sections, "
                f"{YOLOV4_SECTIONS.get(kind, 0)} expected"
            )
    convolutions = [s for s in sections if s.kind == "convolutional"]
    yolos = [s for s in sections if s.kind == "yolo"]
    hidden = [s for s in convolutions if s.options.get("batch_normalize") == "1"]
    activations = [s.options.get("activation", "logistic") for s in hidden]
    try:
        net = sections[0].options
        width, height = int(net.get("width", 0)), int(net.get("height", 0))
        flat = [float(v) for v in yolos[0].options["anchors"].split(",")]
        anchors = tuple(zip(flat[::2], flat[1::2], strict=True))
        num_classes = int(yolos[0].options.get("classes", "20"))
        scale_xy = tuple(float(y.options.get("scale_x_y", "1")) for y in yolos)
        masks = [tuple(int(v) for v in y.options["mask"].split(",")) for y in yolos]
    except (KeyError, ValueError) as error:
        raise YolomishError(f"{path}: [net] or [yolo] cannot be understood: {error}") from None
    if masks != [(0, 1, 2), (3, 4, 5), (6, 7, 8)]:
        raise YolomishError(f"{path}: masks {masks} are not yolov4's 0-2, 3-5, 6-8")
    for section in yolos:
        if section.options.get("new_coords", "0") != "0":
            raise YolomishError(f"{path}:{section.line}: new_coords=1 (the Scaled-YOLOv4 box form) is not supported")
        if int(section.options.get("classes", "20")) != num_classes:
            raise YolomishError(f"{path}:{section.line}: [yolo] sections disagree on classes")
    outputs = 3 * (5 + num_classes)
    for section in convolutions:
        if section not in hidden and section.options.get("filters") != str(outputs):
            raise YolomishError(
                f"{path}:{section.line}: head has filters={section.options.get('filters')}, "
                f"but {num_classes} classes need 3·(5+{num_classes}) = {outputs}"
            )
    config = ModelConfig(
        name=Path(path).stem,
        num_classes=num_classes,
        activation=_one(path, "backbone activations", activations[:BACKBONE_CONVOLUTIONS]),
        neck_activation=_one(path, "neck activations", activations[BACKBONE_CONVOLUTIONS:]),
        image_size=(height, width),
        anchors=anchors,
        scale_xy=scale_xy,
    )
    check_model(config)
    return config
