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
    """A member of the YOLOv4 family. Anchors are nine (width, height) in network pixels, small to large; ``box_form``
    exp or squared, see ``HeadSpec``.

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
    box_form: str = "exp"


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where a data set lies. ``format``: coco (JSON + image folder), voc (root with Annotations/JPEGImages/ImageSets),
    yolo (image list or folder; labels beside or in labels/), shapes (generated). Relative paths start at the YAML's folder.

    ``test`` may be COCO image information without annotations (image_info_test-dev2017.json)."""

    format: str = "shapes"
    root: str = ""
    train: str = "train"
    val: str = "val"
    train_images: str = ""
    val_images: str = ""
    test: str = ""
    test_images: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run: everything that decides its result. Saved beside it as ``config.yaml``.

    The defaults are the ``scaled`` recipe's loss with mild augmentation; ``configs/recipes`` holds whole recipes.
    ``batch`` images make a step, ``mini_batch`` of them (0: all; -1: as many as the GPU holds) are in memory at once.
    ``burn_in`` counts steps, or ``burn_in_epochs`` epochs if that is more. ``multi_scale`` r draws a size from
    image_size/r to image_size·r every ten steps; 0 keeps one size. ``geometry``: ``jitter`` moves each side (Darknet),
    ``affine`` rotates, scales, shears and shifts on a canvas of four (Scaled-YOLOv4). ``freeze`` names the start of
    parameters' names, such as ``backbone``. ``kernels`` says what runs batch norm + activation: auto,
    eager (torch's layers), fused or compile; ``memory`` lean computes activations again in backward.
    """

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    image_size: int = 416
    epochs: int = 100
    batch: int = 16
    mini_batch: int = 0
    optimizer: str = "sgd"
    peak_lr: float = 0.01
    schedule: str = "cosine"
    final_lr_fraction: float = 0.05
    lr_steps: tuple[float, ...] = (0.8, 0.9)
    lr_step_factor: float = 0.1
    momentum: float = 0.937
    nesterov: bool = False
    weight_decay: float = 0.0005
    burn_in: int = 1000
    burn_in_epochs: float = 0.0
    burn_in_power: float = 4.0
    burn_in_momentum: float = 0.0
    burn_in_bias_lr: float = 0.0
    loss: str = "scaled"
    assignment: str = "ratio"
    box_gain: float = 0.05
    objectness_gain: float = 1.0
    class_gain: float = 0.5
    scale_gains: bool = True
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    adversarial: float = 0.0
    dropblock: float = 0.0
    freeze: tuple[str, ...] = ()
    multi_scale: float = 0.0
    mosaic: float = 0.5
    mixup: float = 0.0
    cutmix: float = 0.0
    geometry: str = "jitter"
    jitter: float = 0.3
    degrees: float = 0.0
    translate: float = 0.1
    scale: float = 0.5
    shear: float = 0.0
    perspective: float = 0.0
    flip: float = 0.5
    hue: float = 0.1
    saturation: float = 1.5
    exposure: float = 1.5
    close_mosaic: int = 0
    resize: str = "stretch"
    ema: bool = True
    ema_decay: float = 0.9998
    amp: str = "off"
    compile: bool = False
    kernels: str = "auto"
    memory: str = "normal"
    channels_last: bool = True
    cache: str = "off"
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
    """The YAML files that come with the package, by name: ``group`` is ``models``, ``data`` or ``recipes``."""
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
    if config.box_form not in ("exp", "squared"):
        raise unknown_name("box_form", config.box_form, ("exp", "squared"))
    check_image_size(config.image_size)


def check_image_size(size: int) -> None:
    """Network sizes are multiples of 32 (the coarsest stride)."""
    if size < 32 or size % 32:
        raise YolomishError(
            f"image size must be a multiple of 32 and at least 32, not {size}: try {max(32, round(size / 32) * 32)}"
        )


CHOICES = {
    "resize": ("stretch", "letterbox"),
    "amp": ("off", "bf16", "fp16"),
    "optimizer": ("sgd", "adamw"),
    "schedule": ("cosine", "linear", "steps"),
    "loss": ("scaled", "darknet"),
    "assignment": ("ratio", "shape-iou"),
    "geometry": ("jitter", "affine"),
    "cache": ("off", "ram", "disk"),
    "kernels": ("auto", "eager", "fused", "compile"),
    "memory": ("normal", "lean"),
}
SHARES = (
    "mosaic mixup cutmix flip momentum burn_in_momentum ema_decay jitter hue final_lr_fraction lr_step_factor translate scale "
    "label_smoothing dropblock perspective"
).split()
NOT_NEGATIVE = (
    "burn_in burn_in_epochs burn_in_power burn_in_bias_lr workers close_mosaic weight_decay box_gain "
    "objectness_gain class_gain focal_gamma adversarial degrees shear"
).split()


def check_train(config: TrainConfig) -> None:
    """Refuse values out of range, each named, before any heavy work."""
    check_model(config.model)
    check_image_size(config.image_size)
    for key in ("epochs", "batch", "eval_every"):
        if getattr(config, key) < 1:
            raise YolomishError(f"{key} must be at least 1, not {getattr(config, key)}")
    for key in SHARES:
        if not 0 <= getattr(config, key) <= 1:
            raise YolomishError(f"{key} must be between 0 and 1, not {getattr(config, key)}")
    for key in NOT_NEGATIVE:
        if not getattr(config, key) >= 0:
            raise YolomishError(f"{key} must not be negative, not {getattr(config, key)}")
    if not config.peak_lr > 0:
        raise YolomishError(f"peak_lr must be positive, not {config.peak_lr}")
    for key, known in CHOICES.items():
        if getattr(config, key) not in known:
            raise unknown_name(key, getattr(config, key), known)
    for key in ("saturation", "exposure"):
        if not getattr(config, key) >= 1:
            raise YolomishError(f"{key} must be at least 1, not {getattr(config, key)}")
    if config.multi_scale and not 1 < config.multi_scale <= 2:
        raise YolomishError(f"multi_scale must be 0 (one size) or over 1 and at most 2, not {config.multi_scale}")
    if config.mini_batch < -1:
        raise YolomishError(f"mini_batch must be -1 (by memory), 0 (the batch) or more, not {config.mini_batch}")
    if config.mini_batch > 0 and config.batch % config.mini_batch:
        raise YolomishError(f"batch {config.batch} must be a multiple of mini_batch {config.mini_batch}")
    if config.scale == 1 and config.geometry == "affine":
        raise YolomishError("scale must be under 1: the smallest picture would have no size")
    if config.loss == "darknet" and (config.assignment != "shape-iou" or config.model.box_form != "exp"):
        raise YolomishError("the darknet loss goes with assignment shape-iou and box_form exp")
    if config.memory == "lean" and config.compile:
        raise YolomishError("memory lean does not go with compile, which decides itself what to keep: leave one out")
    if any(b <= a for a, b in zip((0.0, *config.lr_steps), (*config.lr_steps, 1.0), strict=True)):
        raise YolomishError(f"lr_steps must rise between 0 and 1, not {config.lr_steps}")


def load_recipe(name: str, model: ModelConfig) -> TrainConfig:
    """A training recipe for ``model`` by shipped name (``darknet``, ``scaled``) or path to a YAML of ``TrainConfig`` keys.

    Its ``model`` may hold what the recipe needs of the network, such as ``box_form``; the rest stays as it is. Its
    ``base`` may name a shipped recipe from which it differs in what it states.
    """
    values = _recipe_values(name)
    base = values.pop("base", None)
    if base is not None:
        if base not in shipped("recipes"):
            raise unknown_name("recipe", str(base), shipped("recipes"))
        below = _recipe_values(base)
        values = below | values | {"model": (below.get("model") or {}) | (values.get("model") or {})}
    changes = values.pop("model", None) or {}
    changed = from_dict(ModelConfig, to_dict(model) | changes, f"{name}.model")
    return dataclasses.replace(from_dict(TrainConfig, values, name), model=changed)


def _recipe_values(name: str) -> dict[str, Any]:
    known = shipped("recipes")
    if name not in known and Path(name).suffix not in (".yaml", ".yml"):
        raise unknown_name("recipe", name, known)
    values = load_yaml(known.get(name, Path(name)))
    if not isinstance(values.get("model") or {}, dict):
        raise YolomishError(f"{name}.model must be a mapping, not {values['model']!r}")
    return values


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def config_difference(a: TrainConfig, b: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Every setting in which two configurations differ, by dotted key: ``{"model.activation": ("mish", "relu")}``."""
    left, right = _flat(to_dict(a)), _flat(to_dict(b))
    return {k: (left.get(k), right.get(k)) for k in sorted({*left, *right}) if left.get(k) != right.get(k)}
