"""Frozen dataclasses for every setting; YAML states only what differs, unknown keys are refused with the nearest match."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml

from yolomish.errors import YolomishError, unknown_name

T = TypeVar("T")

YOLOV4_ANCHORS = ((12, 16), (19, 36), (40, 28), (36, 75), (76, 55), (72, 146), (142, 110), (192, 243), (459, 401))


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A member of the YOLOv4 family. Anchors are nine (width, height) in pixels at ``image_size``, small to large.

    ``bn_momentum`` is the running-average factor: 0.01 in Darknet's GPU path (src/batchnorm_layer.c); runs of a few
    hundred steps need more."""

    name: str = "yolov4"
    num_classes: int = 80
    activation: str = "mish"
    neck_activation: str = "leaky_relu"
    width: float = 1.0
    depth: float = 1.0
    image_size: int = 608
    bn_momentum: float = 0.01
    anchors: tuple[tuple[float, float], ...] = YOLOV4_ANCHORS
    scale_xy: tuple[float, float, float] = (1.2, 1.1, 1.05)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where a data set lies. ``format``: coco (JSON + image folder), voc (root with Annotations/JPEGImages/ImageSets),
    yolo (image list or folder; labels beside or in labels/), shapes (generated). Relative paths start at the YAML's folder."""

    format: str = "shapes"
    root: str = ""
    train: str = "train"
    val: str = "val"
    train_images: str = ""
    val_images: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run: everything that decides its result. Saved beside it as ``config.yaml``."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    image_size: int = 416
    epochs: int = 100
    batch: int = 16
    peak_lr: float = 0.01
    final_lr_fraction: float = 0.05
    momentum: float = 0.937
    weight_decay: float = 0.0005
    burn_in: int = 1000
    box_gain: float = 0.05
    objectness_gain: float = 1.0
    class_gain: float = 0.5
    mosaic: float = 0.5
    jitter: float = 0.3
    flip: float = 0.5
    hue: float = 0.1
    saturation: float = 1.5
    exposure: float = 1.5
    close_mosaic: int = 0
    resize: str = "stretch"
    ema: bool = True
    ema_decay: float = 0.9998
    amp: str = "off"
    channels_last: bool = True
    workers: int = 2
    seed: int = 0
    device: str = "auto"
    eval_every: int = 1


def load_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; YolomishError where the file is missing, broken or not a mapping."""
    try:
        raw = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise YolomishError(f"no such file: {path}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise YolomishError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise YolomishError(f"{path} holds a {type(raw).__name__}, not a mapping of settings")
    return raw


def _convert(value: Any, kind: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise YolomishError(f"{where} must be a mapping, not {value!r}")
        return from_dict(typing.cast(type, kind), value, where)
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise YolomishError(f"{where} must be a list, not {value!r}")
        inner = get_args(kind)
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(_convert(v, inner[0], f"{where}[{i}]") for i, v in enumerate(value))
        if len(value) != len(inner):
            raise YolomishError(f"{where} must have {len(inner)} values, not {len(value)}: {value!r}")
        return tuple(_convert(v, k, f"{where}[{i}]") for i, (v, k) in enumerate(zip(value, inner, strict=True)))
    if kind is bool:
        if isinstance(value, bool):
            return value
    elif kind in (int, float):
        if isinstance(value, bool):
            pass
        elif isinstance(value, int | float | str):
            try:
                number = float(value)  # YAML reads 1e-3 as a string
                if kind is float or number.is_integer():
                    return kind(number)
            except (ValueError, OverflowError):
                pass
    elif kind is str and isinstance(value, str | int | float | types.NoneType):
        return "" if value is None else str(value)
    raise YolomishError(f"{where} must be {kind.__name__}, not {value!r}")


def from_dict(kind: type[T], values: dict[str, Any], where: str = "configuration") -> T:
    """A dataclass from plain values, converted to the fields' types; unknown keys and wrong types are YolomishErrors."""
    hints = typing.get_type_hints(kind)
    for key in values:
        if key not in hints:
            raise unknown_name(f"key in {where}", str(key), hints)
    return kind(**{k: _convert(v, hints[k], f"{where}.{k}") for k, v in values.items()})


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain dicts, lists, numbers and strings, ready for YAML or JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, list | tuple) else value

    return plain(dataclasses.asdict(config))


def save_yaml(config: Any, path: str | Path) -> None:
    """Write a dataclass as YAML."""
    Path(path).write_text(yaml.safe_dump(to_dict(config), sort_keys=False), encoding="utf-8")


def shipped(group: str) -> dict[str, Path]:
    """The YAML files that come with the package, by name: ``group`` is ``models`` or ``data``."""
    here = Path(__file__).resolve().parent
    for folder in (here / "configs" / group, here.parent / "configs" / group):
        if folder.is_dir():
            return {p.stem: p for p in sorted(folder.glob("*.yaml"))}
    raise YolomishError(f"the package's configs/{group} is missing: reinstall yolomish")


def load_model_config(name: str) -> ModelConfig:
    """A model by shipped name (``yolov4``, ``yolov4-s``, ``yolov4-n``) or path to a YAML."""
    config = _load(ModelConfig, "models", name, "model")
    check_model(config)
    return config


def load_data_config(name: str) -> DataConfig:
    """A data set by shipped name (``shapes``) or path to a YAML; relative paths are resolved against the YAML's folder."""
    config = _load(DataConfig, "data", name, "data set")
    if config.format not in ("coco", "voc", "yolo", "shapes"):
        raise unknown_name("data format", config.format, ("coco", "voc", "yolo", "shapes"))
    if name not in shipped("data"):
        config = dataclasses.replace(config, root=str((Path(name).resolve().parent / config.root).resolve()))
    return config


def _load(kind: type[T], group: str, name: str, what: str) -> T:
    known = shipped(group)
    if name in known:
        return from_dict(kind, load_yaml(known[name]), name)
    if Path(name).suffix in (".yaml", ".yml"):
        return from_dict(kind, load_yaml(name), name)
    raise unknown_name(what, name, known)


def check_model(config: ModelConfig) -> None:
    """Refuse a model that cannot be built, before any heavy work."""
    if config.num_classes < 1:
        raise YolomishError(f"num_classes must be at least 1, not {config.num_classes}")
    if len(config.anchors) != 9 or any(w <= 0 or h <= 0 for w, h in config.anchors):
        raise YolomishError(f"anchors must be 9 pairs of positive width,height, not {config.anchors!r}")
    if config.width <= 0 or config.depth <= 0:
        raise YolomishError(f"width and depth must be positive, not {config.width} and {config.depth}")
    check_image_size(config.image_size)


def check_image_size(size: int) -> None:
    """Network sizes are multiples of 32 (the coarsest stride)."""
    if size < 32 or size % 32:
        raise YolomishError(
            f"image size must be a multiple of 32 and at least 32, not {size}: try {max(32, round(size / 32) * 32)}"
        )


def check_train(config: TrainConfig) -> None:
    """Refuse values out of range, each named, before any heavy work."""
    check_model(config.model)
    check_image_size(config.image_size)
    for key in ("epochs", "batch", "eval_every"):
        if getattr(config, key) < 1:
            raise YolomishError(f"{key} must be at least 1, not {getattr(config, key)}")
    for key in ("mosaic", "flip", "momentum", "ema_decay", "jitter", "hue", "final_lr_fraction"):
        if not 0 <= getattr(config, key) <= 1:
            raise YolomishError(f"{key} must be between 0 and 1, not {getattr(config, key)}")
    for key in ("burn_in", "workers", "close_mosaic", "weight_decay", "box_gain", "objectness_gain", "class_gain"):
        if getattr(config, key) < 0:
            raise YolomishError(f"{key} must not be negative, not {getattr(config, key)}")
    if not config.peak_lr > 0:
        raise YolomishError(f"peak_lr must be positive, not {config.peak_lr}")
    for key, known in (("resize", ("stretch", "letterbox")), ("amp", ("off", "bf16", "fp16"))):
        if getattr(config, key) not in known:
            raise unknown_name(key, getattr(config, key), known)
    for key in ("saturation", "exposure"):
        if getattr(config, key) < 1:
            raise YolomishError(f"{key} must be at least 1, not {getattr(config, key)}")
