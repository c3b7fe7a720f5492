"""``--recipe cfg``: the training of a Darknet cfg."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import four_pictures, noise_data
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.config import TrainConfig, check_train, config_difference, from_dict, load_yaml, save_yaml
from yolomish.darknet.cfg import ANYWHERE, KEYS, parse_cfg
from yolomish.darknet.network import config_of
from yolomish.darknet.recipe import CfgRecipe, cfg_recipe
from yolomish.errors import YolomishError
from yolomish.networks import build_network
from yolomish.training.build import prepare
from yolomish.training.optim import burn_in_steps, learning_rate
from yolomish.types import FLT_MAX, LossConstants

pytestmark = pytest.mark.usefixtures("undrawn")

NET = """[net]
batch=64
subdivisions=8
width=96
height=64
channels=3
momentum=0.949
decay=0.0005
angle=0
saturation=1.5
exposure=2
hue=.1
learning_rate=0.0013
burn_in=100
max_batches=6001
policy=steps
steps=4800,5400
scales=.1,.1
mosaic=1
"""
HEADS = """
[convolutional]
filters=4
size=3
stride=32
pad=1
activation=leaky

[convolutional]
filters=14
size=1
activation=linear

[yolo]
mask=0,1
anchors=8,8, 16,16, 32,32
classes=2
num=3
jitter=.3

[route]
layers=0

[convolutional]
filters=7
size=1
activation=linear

[yolo]
mask=2
anchors=8,8, 16,16, 32,32
classes=2
num=3
"""


def tiny(width: int) -> str:
    """The sections of cfg/yolov4-tiny.cfg with so many filters in the first convolution, of 32, and two classes."""

    def conv(filters: int, size: int = 3, stride: int = 1) -> str:
        return f"[convolutional]\nbatch_normalize=1\nfilters={filters}\nsize={size}\nstride={stride}\npad=1\nactivation=leaky\n"

    def stage(c: int) -> str:
        split = "[route]\nlayers=-1\ngroups=2\ngroup_id=1\n"
        joined = f"[route]\nlayers=-1,-2\n{conv(c, 1)}[route]\nlayers=-6,-1\n[maxpool]\nsize=2\nstride=2\n"
        return conv(c) + split + conv(c // 2) + conv(c // 2) + joined

    def head(mask: str, c: int) -> str:
        anchors = "10,14, 23,27, 37,58, 81,82, 135,169, 344,319"
        yolo = (
            f"[yolo]\nmask={mask}\nanchors={anchors}\nclasses=2\nnum=6\njitter=.3\nscale_x_y=1.05\ncls_normalizer=1.0\n"
            "iou_normalizer=0.07\niou_loss=ciou\nignore_thresh=.7\ntruth_thresh=1\nrandom=0\nresize=1.5\nnms_kind=greedynms\n"
        )
        return conv(c) + "[convolutional]\nsize=1\nstride=1\npad=1\nfilters=21\nactivation=linear\n" + yolo

    w = width
    backbone = conv(w, 3, 2) + conv(2 * w, 3, 2) + stage(2 * w) + stage(4 * w) + stage(8 * w) + conv(16 * w)
    neck = f"[route]\nlayers=-4\n{conv(4 * w, 1)}[upsample]\nstride=2\n[route]\nlayers=-1,23\n"
    return NET + backbone + conv(8 * w, 1) + head("3,4,5", 16 * w) + neck + head("1,2,3", 8 * w)


def recipe(text: str, images: int = 640) -> CfgRecipe:
    cfg = parse_cfg(text, "my.cfg")
    return cfg_recipe(config_of(cfg.sections, "my"), cfg, lambda config: images // config.batch)


def with_net(**values: object) -> str:
    """NET with other values, and HEADS."""
    lines = dict(line.split("=", 1) for line in NET.splitlines()[1:]) | {k: str(v) for k, v in values.items()}
    return "[net]\n" + "".join(f"{key}={value}\n" for key, value in lines.items()) + HEADS


def test_settings_of_a_cfg_become_the_configurations() -> None:
    found = recipe(NET + HEADS + "ignore_thresh=.6\nrandom=1\nresize=1.5\nmax_delta=2\niou_loss=giou\niou_thresh=.2\n")
    config = found.config
    check_train(config)
    assert (config.batch, config.mini_batch, config.image_size) == (64, 8, (64, 96))
    assert (config.peak_lr, config.momentum, config.weight_decay, config.nesterov) == (0.0013, 0.949, 0.0005, False)
    assert (config.loss, config.assignment, config.geometry, config.resize) == ("darknet", "shape-iou", "jitter", "stretch")
    assert (config.hue, config.saturation, config.exposure, config.flip) == (0.1, 1.5, 2.0, 0.5)
    assert (config.mosaic, config.mixup, config.ema, config.burn_in, config.burn_in_power) == (0.5, 0.0, False, 100, 4)
    assert (config.jitter, config.zoom, config.multi_scale) == (0.2, 1.5, 1.4)  # of the last head, jitter by the parser's default
    first, last = build_network(config.model).heads
    assert first.loss == LossConstants(  # src/parser.c parse_yolo
        ignore_iou=0.5, truth_iou=1.0, shape_iou=1.0, box_loss="mse", box=0.75, max_delta=FLT_MAX
    )
    assert last.loss == replace(first.loss, ignore_iou=0.6, max_delta=2.0, box_loss="giou", shape_iou=0.2)
    assert not found.notes or all("without effect" in note for note in found.notes)


def test_defaults_are_the_parsers() -> None:
    config = recipe("[net]\nwidth=64\nheight=64\nchannels=3\nmax_batches=10\nbatch=8\n" + HEADS).config
    assert (config.momentum, config.weight_decay, config.peak_lr, config.mini_batch) == (0.9, 0.0001, 0.001, 8)
    assert (config.saturation, config.exposure, config.hue, config.burn_in, config.mosaic) == (1.0, 1.0, 0.0, 0, 0.0)
    assert learning_rate(7, 80, 0, config) == 0.001


def current_rate(batch_num: int, net: dict[str, float | str | list[float]]) -> float:
    """src/network.c get_current_rate."""
    rate, power = float(net["learning_rate"]), float(net.get("power", 4))
    if batch_num < net["burn_in"]:
        return rate * (batch_num / float(net["burn_in"])) ** power
    if net["policy"] == "step":
        return rate * float(net["scale"]) ** (batch_num // int(net["step"]))
    if net["policy"] == "poly":
        return rate * (1 - batch_num / float(net["max_batches"])) ** power
    if net["policy"] == "sgdr":
        low = float(net["learning_rate_min"])
        return low + 0.5 * (rate - low) * (1 + math.cos(batch_num * math.pi / float(net["max_batches"])))
    if net["policy"] == "steps":
        for step, scale in zip(net["steps"], net["scales"], strict=True):
            if step > batch_num:
                return rate
            rate *= scale
    return rate


@pytest.mark.parametrize(
    "changes",
    [
        {"policy": "steps"},
        {"policy": "steps", "max_batches": 6000, "power": 2},
        {"policy": "steps", "burn_in": 0, "steps": "10,2999", "scales": ".5,.5"},
        {"policy": "constant"},
        {"policy": "step", "step": 2000, "scale": 0.3},
        {"policy": "poly", "power": 1, "burn_in": 0, "max_batches": 6000},
        {"policy": "poly", "power": 3, "max_batches": 6000},
        {"policy": "sgdr", "learning_rate_min": 0.0001, "burn_in": 0, "max_batches": 6000},
    ],
)
def test_rates_are_darknets_at_every_step_and_nothing_is_said(changes: dict) -> None:
    found = recipe(with_net(**changes))
    net = {
        "policy": "steps",
        "burn_in": 100,
        "max_batches": 6001,
        "learning_rate": 0.0013,
        "steps": [4800, 5400],
        "scales": [0.1, 0.1],
    }
    net |= changes | {k: [float(v) for v in changes[k].split(",")] for k in ("steps", "scales") if k in changes}
    config = found.config
    total = config.epochs * 10
    assert total == math.ceil(net["max_batches"] / 10) * 10
    burn_in = burn_in_steps(total, 10, config)
    steps = [*range(1, 120), *range(1990, 2010), *range(2990, 3010), *range(4790, 4810), *range(5390, 5410), 5999]
    rates = [learning_rate(step, total, burn_in, config) for step in steps]
    assert rates == pytest.approx([current_rate(step, net) for step in steps], rel=1e-9)
    assert all("without effect" in note for note in found.notes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"policy": "exp", "gamma": 0.9}, "[net] policy=exp is not honoured: the rate stays"),
        ({"policy": "sigmoid"}, "policy=sigmoid is not honoured"),
        ({"policy": "random"}, "policy=random is not honoured"),
        ({"policy": "sgdr"}, "policy=sgdr is half a cosine from the end of the burn-in"),
        ({"policy": "sgdr", "sgdr_cycle": 1000}, "the restart every 1000 steps is not honoured"),
        ({"steps": "4800,540000"}, "steps=4800,540000 is never reached at 540000, in Darknet too: max_batches=6001"),
        ({"scales": ".1,.5"}, "scales=.1,.5 must be one factor of at most 1: 0.1 is taken"),
        ({"subdivisions": 5}, "subdivisions=5 does not divide batch=64: 60 images make a step"),
        ({"batch": 1, "subdivisions": 1}, "batch=1 is for detection"),
        ({"adversarial_lr": 0.05}, "adversarial_lr=0.05 is not honoured"),
        ({"ema_alpha": 0.9998}, "ema_alpha=0.9998 averages from the first step"),
    ],
)
def test_what_is_not_honoured_is_said_with_file_and_line(changes: dict, said: str) -> None:
    text = with_net(**changes)
    line = 1 + text.splitlines().index(
        f"{(key := next(k for k in changes if f'{k}={changes[k]}' in said or k == 'policy'))}={changes[key]}"
    )
    assert any(note.startswith(f"my.cfg:{line}: [net]") and said in note for note in recipe(text).notes)


@pytest.mark.parametrize("kind", ["net", "convolutional", "yolo"])
def test_every_key_of_training_is_taken_or_said(kind: str) -> None:
    words = {"policy": "steps", "iou_loss": "diou", "iou_thresh_kind": "giou"}
    fixed = {
        "batch": "16",
        "steps": "4800,5400",
        "scales": ".1,.1",
        "counters_per_class": "7,9",
        "stopbackward": "5",
        "jitter": ".4",
    }
    keys = [*KEYS[kind].training.split(), *([] if kind == "net" else ANYWHERE.training.split())]
    for key in dict.fromkeys(keys):
        value = words.get(key, fixed.get(key, "3"))
        if kind == "net":
            text = with_net(**{key: value})
        elif kind == "yolo":
            text = NET + HEADS + f"{key}={value}\n"
        else:
            text = NET + HEADS.replace("pad=1\n", f"pad=1\n{key}={value}\n")
        found = recipe(text)
        lines = [i for i, line in enumerate(text.splitlines(), 1) if line == f"{key}={value}"]
        told = [
            t
            for t in (*found.taken, *found.notes)
            if f"{key}={value}" in t and (f"line {lines[-1]})" in t or f":{lines[-1]}:" in t)
        ]
        assert told, key


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (with_net(max_batches=0), "max_batches=0 must state how many steps"),
        (with_net(subdivisions=128), "subdivisions=128 is more than batch=64"),
        (with_net(steps="5400,4800"), "steps=5400,4800 must rise"),
        (NET + HEADS + "counters_per_class=1,2,3\n", "has 3 numbers for 2 classes"),
        (NET + HEADS + "random=-1\n", "random=-1 must not be negative"),
    ],
)
def test_values_that_nothing_can_be_trained_with_are_refused_with_their_line(text: str, said: str) -> None:
    with pytest.raises(YolomishError, match=r"my\.cfg:\d+: ") as caught:
        recipe(text)
    assert said in str(caught.value)


def test_stopbackward_freezes_what_stands_up_to_it() -> None:
    text = NET + HEADS.replace("filters=14\n", "filters=14\nstopbackward=1\n")
    assert recipe(text).config.freeze == ("layers.0", "layers.1")


def test_the_saved_configuration_builds_the_same_heads_without_the_cfg(tmp_path: Path) -> None:
    text = NET + HEADS + "counters_per_class=30,10\nmax_delta=2\nfocal_loss=1\nobjectness_smooth=1\nlabel_smooth_eps=.1\n"
    config = recipe(text).config
    save_yaml(config, tmp_path / "config.yaml")
    again = from_dict(TrainConfig, load_yaml(tmp_path / "config.yaml"))
    assert again == config
    last = build_network(again.model).heads[-1].loss
    assert last.class_weights == (1.0, 2.0) and last.focal and last.objectness_smooth and last.label_smoothing == 0.1


def test_train_tells_what_it_took_and_saves_what_options_won(tmp_path: Path) -> None:
    data = noise_data(tmp_path, train=4, val=2)
    (tmp_path / "my.yaml").write_text(f"format: yolo\ntrain: {data.train}\nval: {data.val}\nnames: [a, b]\n")
    text = with_net(max_batches=3, burn_in=0, policy="exp", batch=2, subdivisions=2)
    (tmp_path / "my.cfg").write_text(text)
    words = ["train", "--model", str(tmp_path / "my.cfg"), "--recipe", "cfg", "--data", str(tmp_path / "my.yaml")]
    words += ["--workers", "0", "--device", "cpu", "--output", str(tmp_path / "runs"), "--name", "run"]
    dry = CliRunner().invoke(app, [*words, "--dry-run"], catch_exceptions=False)
    assert "max_batches=3 becomes 2 epochs of 2 steps, 4 steps: 1 more, to end the last epoch" in dry.output
    assert "taken from [net] of line 1: batch=2 (line 2)" in dry.output
    assert f"my.cfg:{1 + text.splitlines().index('policy=exp')}: [net] policy=exp is not honoured" in dry.output
    run = CliRunner().invoke(app, [*words, "--mosaic", "0", "--batch", "4"], catch_exceptions=False)
    assert "policy=exp is not honoured" in run.output and "taken from" not in run.output
    (tmp_path / "my.cfg").unlink()
    config = from_dict(TrainConfig, load_yaml(tmp_path / "runs" / "run" / "config.yaml"))
    assert (config.mosaic, config.batch, config.epochs, config.loss) == (0.0, 4, 3, "darknet")
    again = CliRunner().invoke(
        app, ["train", "--resume", str(tmp_path / "runs" / "run"), "--epochs", "4"], catch_exceptions=False
    )
    assert again.exit_code == 0 and len((tmp_path / "runs" / "run" / "results.csv").read_text().splitlines()) == 5


def test_a_comparison_trains_its_arms_by_the_cfg(tmp_path: Path) -> None:
    data = noise_data(tmp_path, train=4, val=2)
    (tmp_path / "my.yaml").write_text(f"format: yolo\ntrain: {data.train}\nval: {data.val}\nnames: [a, b]\n")
    cfg = tmp_path / "my.cfg"
    cfg.write_text(with_net(max_batches=2, burn_in=0, batch=2, subdivisions=1, mosaic=0))
    words = ["compare", "--model", str(cfg), "--recipe", "cfg", "--data", str(tmp_path / "my.yaml"), "--scope", "leaky_relu=mish"]
    words += ["--seeds", "1", "--workers", "0", "--device", "cpu", "--output", str(tmp_path), "--name", "c"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    leaky, mish = (
        from_dict(TrainConfig, load_yaml(tmp_path / "c" / f"{a}-seed0" / "config.yaml")) for a in ("leaky_relu", "mish")
    )
    assert set(config_difference(leaky, mish)) == {"model.swap"}
    own = recipe(cfg.read_text(), images=4).config
    taken = ("loss", "assignment", "peak_lr", "batch", "momentum", "weight_decay", "schedule", "epochs", "saturation", "jitter")
    assert [getattr(mish, key) for key in taken] == [getattr(own, key) for key in taken]
    built = [build_network(config.model).activations() for config in (leaky, mish)]
    assert "mish" in built[1] and "mish" not in built[0]
    report = json.loads((tmp_path / "c" / "report.json").read_text())
    assert f"--model {cfg}" in report["command"] and "--recipe cfg" in report["command"]


def test_recipe_cfg_needs_a_cfg() -> None:
    done = CliRunner().invoke(app, ["train", "--model", "yolov4-n", "--recipe", "cfg", "--dry-run"])
    assert isinstance(done.exception, YolomishError) and "give --model FILE.cfg, not yolov4-n" in str(done.exception)


def test_a_small_yolov4_tiny_learns_four_pictures_by_heart(tmp_path: Path) -> None:
    steps = 80
    base = recipe(tiny(8)).config
    rates = {"optimizer": "adamw", "momentum": 0.9, "weight_decay": 0.0, "peak_lr": 0.004, "schedule": "cosine", "burn_in": 5}
    still = {"mosaic": 0.0, "jitter": 0.0, "zoom": 1.0, "hue": 0.0, "saturation": 1.0, "exposure": 1.0, "flip": 0.0}
    machine = {"batch": 4, "mini_batch": 0, "workers": 0, "device": "cpu"}
    model = replace(base.model, bn_momentum=0.3)
    data = four_pictures(tmp_path)
    config = replace(base, model=model, data=data, image_size=64, epochs=steps, **(rates | still | machine))
    run = prepare(config, lambda _: None)
    batches = list(run.task.loader(run.train, run.config, run.network, epoch=0))
    run.train_mode()
    losses = [run.step(batches, number)[0].sum().item() for number in range(1, steps + 1)]
    metrics = run.evaluate()
    assert losses[-1] < losses[0] / 10 and metrics.values["AP50"] > 0.94, (losses[::20], metrics)
