"""``--recipe cfg`` for Darknet's classifiers: src/classifier.c train_classifier and src/data.c load_data_augment."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from reference.classes import coloured_squares
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.config import TrainConfig, check_train, from_dict, load_recipe, load_yaml
from yolomish.darknet.cfg import KEYS, load_cfg, parse_cfg
from yolomish.darknet.network import config_of, read_cfg
from yolomish.darknet.recipe import CfgRecipe, cfg_recipe
from yolomish.errors import YolomishError
from yolomish.networks import find_model
from yolomish.tasks.classification.loss import classification_loss
from yolomish.training.optim import learning_rate

IMAGENET = 1_281_167
NET = "[net]\nbatch=16\nsubdivisions=2\nwidth=32\nheight=32\nchannels=3\nlearning_rate=0.1\nmax_batches=20\n"
LAYERS = (
    "[convolutional]\nbatch_normalize=1\nfilters=8\nsize=3\nstride=2\npad=1\nactivation=mish\n"
    "[convolutional]\nfilters=3\nsize=1\nactivation=linear\n[avgpool]\n[softmax]\ngroups=1\n"
)
CFGS = ("csdarknet53-omega", "csresnet50-omega", "csresnext50-omega", "darknet53-mish", "densenet201-mish", "resnet50-mish")
CFGS += ("resnext50-mish",)


def recipe(text: str, images: int = 160) -> CfgRecipe:
    cfg = parse_cfg(text, "my.cfg")
    return cfg_recipe(config_of(cfg.sections, "my"), cfg, lambda config: images // config.batch)


@pytest.mark.parametrize("name", CFGS)
def test_published_cfgs_become_recipes(name: str, shared_data: Path) -> None:
    file = shared_data / "darknet-cfg" / "classifiers" / f"{name}.cfg"
    cfg = load_cfg(file)
    found = cfg_recipe(read_cfg(str(file)), cfg, lambda config: IMAGENET // config.batch)
    config, net = found.config, cfg.sections[0]
    check_train(config)
    assert config.task == "classify" and (config.batch, config.mini_batch) == (128, 128 // net.number("subdivisions", 0))
    keys = {"peak_lr": "learning_rate", "poly_power": "power", "burn_in": "burn_in", "momentum": "momentum"}
    keys |= {"weight_decay": "decay", "degrees": "angle", "hue": "hue"}
    assert {ours: getattr(config, ours) for ours in keys} == {ours: net.number(theirs, 0) for ours, theirs in keys.items()}
    omega = name.endswith("omega")
    assert (config.mosaic, config.cutmix, config.mixup) == ((0.25, 0.25, 0.0) if omega else (0.0, 0.0, 0.0))
    assert config.label_smoothing == pytest.approx(0.1 * 1000 / 999 if omega else 0)
    most, steps = net.number("max_batches", 0), IMAGENET // 128
    for step in (1, 500, 1000, 400_000):  # src/network.c get_current_rate
        theirs = 0.1 * ((step / 1000) ** 4 if step < 1000 else (1 - step / most) ** 4)
        assert learning_rate(step, config.epochs * steps, config.burn_in, config) == pytest.approx(theirs, rel=0.02)
    said = " ".join(found.notes)
    assert "min_crop=128 is not honoured" in said and "max_crop=448 draws the area" in said


def test_the_omega_cfg_is_the_shipped_recipe(shared_data: Path) -> None:
    file = shared_data / "darknet-cfg" / "classifiers" / "csdarknet53-omega.cfg"
    ours = load_recipe("darknet-omega", find_model("cspdarknet53"))
    theirs = cfg_recipe(read_cfg(str(file)), load_cfg(file), lambda config: IMAGENET // config.batch).config
    same = (
        "task",
        "batch",
        "mini_batch",
        "optimizer",
        "peak_lr",
        "schedule",
        "poly_power",
        "momentum",
        "weight_decay",
        "burn_in",
    )
    same += ("burn_in_power", "mosaic", "cutmix", "mixup", "degrees", "flip", "hue", "eval_crop", "ema", "image_size", "epochs")
    assert {key: getattr(ours, key) for key in same} == {key: getattr(theirs, key) for key in same}
    for key in ("crop_area", "crop_aspect", "saturation", "exposure", "label_smoothing"):
        assert getattr(ours, key) == pytest.approx(getattr(theirs, key), rel=0.02)


def test_defaults_are_the_parsers() -> None:
    config = recipe("[net]\nwidth=32\nheight=32\nchannels=3\nmax_batches=20\nbatch=16\n" + LAYERS).config
    assert (config.momentum, config.weight_decay, config.peak_lr, config.mini_batch) == (0.9, 0.0001, 0.001, 16)
    assert (config.degrees, config.crop_aspect, config.crop_area, config.label_smoothing) == (0.0, 1.0, 0.25, 0.0)  # max_crop=2w
    assert (config.mosaic, config.cutmix, config.mixup, config.flip, config.saturation) == (0.0, 0.0, 0.0, 0.5, 1.0)
    assert config.epochs == 2 and config.schedule == "steps" and config.lr_steps == ()


@pytest.mark.parametrize(
    ("keys", "shares"),
    [
        ("mixup=1\n", (0.0, 0.5, 0.0)),
        ("mosaic=1\nmixup=1\n", (0.5, 0.0, 0.0)),
        ("cutmix=1\n", (0.0, 0.0, 0.5)),
        ("mosaic=1\ncutmix=1\n", (0.25, 0.0, 0.25)),
    ],
)
def test_mixing_is_the_parsers_choice(keys: str, shares: tuple) -> None:
    found = recipe(NET + keys + LAYERS)
    assert (found.config.mosaic, found.config.mixup, found.config.cutmix) == shares
    assert any("mixes each image by chance" in note for note in found.notes)


def test_smoothed_targets_are_darknets() -> None:
    eps, logits = 0.3, torch.randn(4, 3)
    truth = torch.full((4, 3), eps / 2)  # src/data.c fill_truth_smooth
    truth[torch.arange(4), torch.arange(4) % 3] = 1 - eps
    smoothing = recipe(NET + f"label_smooth_eps={eps}\n" + LAYERS).config.label_smoothing
    loss = classification_loss(logits, torch.nn.functional.one_hot(torch.arange(4) % 3, 3).float(), smoothing)
    torch.testing.assert_close(loss.total, -(truth * logits.log_softmax(1)).sum())


def test_every_key_of_training_is_taken_or_said() -> None:
    for key in KEYS["net"].training.split():
        value = {"policy": "exp", "batch": "8", "max_crop": "48", "label_smooth_eps": "0.2", "steps": "1,2"}.get(key, "2")
        text = "".join(line for line in NET.splitlines(True) if not line.startswith(f"{key}=")) + f"{key}={value}\n"
        found = recipe(text + LAYERS)
        assert any(f"{key}={value}" in line for line in (*found.taken, *found.notes)), key


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("min_crop=64\nmax_crop=48\n", "must be at least min_crop"),
        ("label_smooth_eps=1\n", "under 1"),
        ("aspect=0\n", "positive"),
    ],
)
def test_what_nothing_can_be_trained_with_is_refused(keys: str, said: str) -> None:
    with pytest.raises(YolomishError, match=rf"my\.cfg:\d+: .*{said}"):
        recipe(NET + keys + LAYERS)


def test_the_command_trains_a_classifier_by_its_cfg(tmp_path: Path) -> None:
    coloured_squares(tmp_path / "data", train=8)
    cfg = tmp_path / "my.cfg"
    cfg.write_text(NET.replace("max_batches=20", "max_batches=2") + "angle=5\nlabel_smooth_eps=.1\n" + LAYERS)
    words = [
        "train",
        "--model",
        str(cfg),
        "--recipe",
        "cfg",
        "--data",
        str(tmp_path / "data"),
        "--workers",
        "0",
        "--device",
        "cpu",
    ]
    done = CliRunner().invoke(app, [*words, "--output", str(tmp_path / "runs"), "--name", "run"], catch_exceptions=False)
    assert done.exit_code == 0 and "top1" in done.output
    config = from_dict(TrainConfig, load_yaml(tmp_path / "runs" / "run" / "config.yaml"))
    assert (config.task, config.epochs, config.degrees, config.batch) == ("classify", 2, 5.0, 16)
    own = recipe(cfg.read_text(), images=24).config
    assert replace(own, data=config.data, model=config.model, workers=0, device="cpu") == config
