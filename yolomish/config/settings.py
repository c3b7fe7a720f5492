"""Every setting, in groups, each with its bounds: what a model, a data set and a training run are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from yolomish.config.schema import (
    COUNT,
    MAY_CHANGE,
    MOST_CLASSES,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    Between,
    ImageSize,
    check_fields,
    marked,
    parse_size,
)
from yolomish.errors import YolomishError

ResizeMode = Literal["stretch", "letterbox"]
BoxForm = Literal["exp", "squared"]
YOLOV4_ANCHORS = ((12, 16), (19, 36), (40, 28), (36, 75), (76, 55), (72, 146), (142, 110), (192, 243), (459, 401))
Anchors = tuple[tuple[float, float], ...]


def _square(config: ModelConfig | TrainConfig) -> None:
    """Let ``image_size=416`` mean a square from Python as it does in YAML."""
    object.__setattr__(config, "image_size", parse_size(config.image_size, "image_size"))


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A network of an ``architecture``. Anchors are all heads' (width, height) in network pixels, small to large;
    ``scale_xy`` is one number per head or the same for all, ``box_form`` exp or squared, see ``HeadSpec``; ``resize`` is how
    images get to ``image_size``, where no training says otherwise. A network made of a Darknet cfg holds its text in ``cfg``;
    its anchors may be empty (each head's own) and its activations too (as in the cfg). ``swap`` puts other activations in,
    ``SCOPE=ACTIVATION`` each (see ``networks.scope``).

    ``bn_momentum`` is the running-average factor: 0.01 in Darknet's GPU path (src/batchnorm_layer.c); runs of a few
    hundred steps need more."""

    name: str = "yolov4"
    architecture: str = "yolov4"
    num_classes: Annotated[int, Between(1, MOST_CLASSES)] = 80
    activation: str = "mish"
    neck_activation: str = "leaky_relu"
    width: Annotated[float, Between(0, 8, without_low=True)] = 1.0
    depth: Annotated[float, Between(0, 8, without_low=True)] = 1.0
    image_size: ImageSize = (608, 608)
    resize: ResizeMode = "stretch"
    bn_momentum: Annotated[float, SHARE] = 0.01
    anchors: Anchors = YOLOV4_ANCHORS
    scale_xy: tuple[float, ...] = (1.2, 1.1, 1.05)
    box_form: BoxForm = "exp"
    cfg: str = ""
    swap: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _square(self)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where a data set lies. ``format`` is one of ``data.formats`` or auto, told by what ``root`` is.

    coco: JSON and image folder (empty: found beside it). voc: a list of ImageSets, or a folder of XML and pictures. yolo:
    image folders or lists, labels beside or in labels/. darknet: lists, their paths as Darknet has them. openimages: CSV and
    image folder. shapes: generated. auto: ``root`` is the file or folder itself. Several paths a split go with yolo alone.

    ``test`` may be COCO image information without annotations (image_info_test-dev2017.json).

    ``fraction`` takes that share of the images of each split, ``classes`` the boxes of those classes alone, and ``split`` makes
    train and val of the train split, such a share for training; val is then not read. ``held_out`` takes that share of the
    training images, whatever these are, out of training and in val's place. See ``data.formats.subset``."""

    format: str = "shapes"
    root: str = ""
    train: str | tuple[str, ...] = "train"
    val: str | tuple[str, ...] = "val"
    train_images: str = ""
    val_images: str = ""
    test: str | tuple[str, ...] = ""
    test_images: str = ""
    names: tuple[str, ...] = ()
    fraction: Annotated[float, Between(0, 1, without_low=True)] = 1.0
    classes: tuple[str, ...] = ()
    split: Annotated[float, Between(0, 1, without_high=True)] = 0.0
    held_out: Annotated[float, Between(0, 1, without_high=True)] = 0.0


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Steps and rates. ``batch`` images make a step, ``mini_batch`` of them (0: all; -1: as many as the GPU holds) are in
    memory at once. ``burn_in`` counts steps, or ``burn_in_epochs`` epochs if that is more. ``freeze`` names parts of the
    network, such as backbone, or the start of parameters' names."""

    epochs: Annotated[int, Between(1, 1_000_000), MAY_CHANGE] = 100
    batch: Annotated[int, Between(1, 65_536)] = 16
    mini_batch: Annotated[int, Between(-1, 65_536)] = 0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    peak_lr: Annotated[float, POSITIVE] = 0.01
    schedule: Literal["cosine", "linear", "steps", "poly"] = "cosine"
    final_lr_fraction: Annotated[float, SHARE] = 0.05
    poly_power: Annotated[float, NOT_NEGATIVE] = 4.0
    lr_steps: tuple[float, ...] = (0.8, 0.9)
    lr_step_factor: Annotated[float, SHARE] = 0.1
    momentum: Annotated[float, SHARE] = 0.937
    nesterov: bool = False
    weight_decay: Annotated[float, NOT_NEGATIVE] = 0.0005
    burn_in: Annotated[int, NOT_NEGATIVE] = 1000
    burn_in_epochs: Annotated[float, NOT_NEGATIVE] = 0.0
    burn_in_power: Annotated[float, NOT_NEGATIVE] = 4.0
    burn_in_momentum: Annotated[float, SHARE] = 0.0
    burn_in_bias_lr: Annotated[float, NOT_NEGATIVE] = 0.0
    ema: bool = True
    ema_decay: Annotated[float, SHARE] = 0.9998
    freeze: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What is minimised: ``darknet``'s deltas or the ``scaled`` loss, and which anchors answer for a box."""

    loss: Literal["scaled", "darknet"] = "scaled"
    assignment: Literal["ratio", "shape-iou"] = "ratio"
    box_gain: Annotated[float, NOT_NEGATIVE] = 0.05
    objectness_gain: Annotated[float, NOT_NEGATIVE] = 1.0
    class_gain: Annotated[float, NOT_NEGATIVE] = 0.5
    scale_gains: bool = True
    label_smoothing: Annotated[float, SHARE] = 0.0
    focal_gamma: Annotated[float, NOT_NEGATIVE] = 0.0
    adversarial: Annotated[float, NOT_NEGATIVE] = 0.0
    dropblock: Annotated[float, SHARE] = 0.0


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How images become training samples. ``multi_scale`` r draws a size from image_size/r to image_size·r every ten steps;
    0 keeps one size. ``geometry``: ``jitter`` moves each side and ``zoom`` two at a time (Darknet's [yolo] jitter and resize),
    ``affine`` rotates, scales, shears and shifts on a canvas of four (Scaled-YOLOv4). ``partners`` of a detector's mosaics,
    mixup and cutmix: ``all`` images, or those of the process's mini-batch (``batch``), each then decoded once and held."""

    resize: ResizeMode = "stretch"
    multi_scale: Annotated[float, Between(0, 2)] = 0.0
    mosaic: Annotated[float, SHARE] = 0.5
    mixup: Annotated[float, SHARE] = 0.0
    cutmix: Annotated[float, SHARE] = 0.0
    partners: Literal["all", "batch"] = "all"
    geometry: Literal["jitter", "affine"] = "jitter"
    jitter: Annotated[float, Between(0, 0.5, without_high=True)] = 0.3  # from 0.5 on both sides could meet
    zoom: Annotated[float, POSITIVE] = 1.0
    degrees: Annotated[float, NOT_NEGATIVE] = 0.0
    translate: Annotated[float, SHARE] = 0.1
    scale: Annotated[float, Between(0, 1, without_high=True)] = 0.5  # at 1 the smallest picture would have no size
    shear: Annotated[float, Between(0, 90, without_high=True)] = 0.0
    perspective: Annotated[float, SHARE] = 0.0
    flip: Annotated[float, SHARE] = 0.5
    hue: Annotated[float, SHARE] = 0.1
    saturation: Annotated[float, COUNT] = 1.5
    exposure: Annotated[float, COUNT] = 1.5
    close_mosaic: Annotated[int, NOT_NEGATIVE] = 0


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig:
    """What classification alone asks for. A training image is a crop of ``crop_area`` to all of its area, its sides 1/a to a
    of it in shape (``crop_aspect``), moved by ``randaugment`` (its magnitude, 0: off); at most one of ``mosaic``, ``mixup`` and
    ``cutmix`` mixes it with others, those two by Beta(alpha, alpha). ``eval_crop`` is the share of the resized image's shorter
    side that is evaluated, in its middle."""

    crop_area: Annotated[float, Between(0, 1, without_low=True)] = 0.08
    crop_aspect: Annotated[float, COUNT] = 4 / 3
    randaugment: Annotated[int, Between(0, 30)] = 0
    mixup_alpha: Annotated[float, POSITIVE] = 0.2
    cutmix_alpha: Annotated[float, POSITIVE] = 1.0
    eval_crop: Annotated[float, Between(0, 1, without_low=True)] = 0.875


@dataclass(frozen=True, kw_only=True)
class MachineConfig:
    """How it is computed. ``amp`` is mixed precision: bf16 on CUDA and CPUs, fp16 on CUDA. ``kernels`` says what runs batch
    norm + activation: auto, eager (torch's layers), fused or compile; ``memory`` lean recomputes activations in backward;
    ``cache`` keeps decoded images off, in ram or on disk."""

    amp: Literal["off", "bf16", "fp16"] = "off"
    compile: bool = False
    kernels: Literal["auto", "eager", "fused", "compile"] = "auto"
    memory: Literal["normal", "lean"] = "normal"
    channels_last: bool = True
    cache: Annotated[Literal["off", "ram", "disk"], MAY_CHANGE] = "off"
    workers: Annotated[int, Between(0, 256), MAY_CHANGE] = 2
    device: Annotated[str, MAY_CHANGE] = "auto"


@dataclass(frozen=True, kw_only=True)
class TrainConfig(OptimConfig, LossConfig, AugmentConfig, ClassifyConfig, MachineConfig):
    """One training run: everything that decides its result. Saved beside it as ``config.yaml``.

    The defaults are the ``scaled`` recipe's loss with mild augmentation; ``configs/recipes`` holds whole recipes.
    ``initial_weights`` names the file that the run starts from (empty: random weights), whose SHA-256 is recorded when it
    starts.
    """

    task: Literal["detect", "classify"] = "detect"
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    image_size: ImageSize = (416, 416)
    seed: Annotated[int, Between(0, 2**32 - 1)] = 0
    initial_weights: str = ""
    initial_weights_sha256: str = ""
    eval_every: Annotated[int, COUNT] = 1

    def __post_init__(self) -> None:
        _square(self)


RESUMABLE = marked(TrainConfig, MAY_CHANGE)  # what may differ between a run and its resumption


def check_model(config: ModelConfig) -> None:
    """Refuse values that no network can have; each architecture refuses more when it is built."""
    check_fields(config)
    if any(w <= 0 or h <= 0 for w, h in config.anchors):
        raise YolomishError(f"anchors must be pairs of positive width,height, not {config.anchors!r}")


def check_train(config: TrainConfig) -> None:
    """Refuse values out of range and those that do not go together, each named, before any heavy work."""
    check_model(config.model)
    check_fields(config)
    if config.multi_scale and config.multi_scale <= 1:
        raise YolomishError(f"multi_scale must be 0 (one size) or over 1 and at most 2, not {config.multi_scale}")
    if config.mini_batch > 0 and config.batch % config.mini_batch:
        raise YolomishError(f"batch {config.batch} must be a multiple of mini_batch {config.mini_batch}")
    if config.loss == "darknet" and config.assignment != "shape-iou":
        raise YolomishError("the darknet loss goes with assignment shape-iou")
    if config.loss == "darknet" and config.focal_gamma:
        raise YolomishError("the darknet loss has no focal_gamma but its own: focal_loss=1 in a cfg's [yolo]")
    if config.memory == "lean" and config.compile:
        raise YolomishError("memory lean does not go with compile, which decides itself what to keep: leave one out")
    if any(b <= a for a, b in zip((0.0, *config.lr_steps), (*config.lr_steps, 1.0), strict=True)):
        raise YolomishError(f"lr_steps must rise between 0 and 1, not {config.lr_steps}")
