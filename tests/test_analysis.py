"""Landscapes, noise and depth: each against something known beforehand."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import noise_data
from matplotlib.figure import Figure
from reference.builders import pipeline_of
from reference.classes import NAMES, TINY, coloured_squares
from torch import nn
from typer.testing import CliRunner

from yolomish.analysis import noise
from yolomish.analysis.loss_landscape import (
    batch_loss,
    checkpoint_landscape,
    filter_normalised_direction,
    loss_surface,
)
from yolomish.analysis.noise import NoisyInput, noise_curve, noise_points
from yolomish.analysis.output_landscape import output_landscape
from yolomish.analysis.sweep import (
    OPTIMIZERS,
    VALUES,
    PlainConfig,
    Task,
    picture_task,
    plain_network,
    read_values,
    sweep,
    train_plain,
)
from yolomish.commands import app
from yolomish.config import DataConfig, ModelConfig, TrainConfig
from yolomish.data.classification import open_classes
from yolomish.data.datasets import open_data
from yolomish.data.loader import eval_loader
from yolomish.data.streams import Use
from yolomish.errors import YolomishError
from yolomish.evaluation.coco import evaluate
from yolomish.networks import build_network
from yolomish.tasks.classification.protocol import ClassProtocol
from yolomish.tasks.detection.predict import predict
from yolomish.tasks.detection.protocol import training_protocol
from yolomish.training.loop import fit
from yolomish.types import InputSpec
from yolomish.weights.checkpoint import save_checkpoint
from yolomish.weights.load import load_network

SMALL = ModelConfig(name="n", width=0.125, depth=0.25, num_classes=4, image_size=64, box_form="squared", scale_xy=(2, 2, 2))


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    torch.manual_seed(0)
    model = build_network(SMALL)
    path = tmp_path / "run" / "best.pt"
    path.parent.mkdir()
    config = TrainConfig(model=SMALL, image_size=64, data=DataConfig(format="shapes"))
    save_checkpoint(path, config=config, model=model, names=("circle", "square", "triangle", "star"))
    return str(path)


def test_directions_have_the_norm_of_every_filter_and_leave_biases() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 5))
    weights = dict(model.named_parameters())
    first, again, other = (filter_normalised_direction(model, seed) for seed in (0, 0, 1))
    for name, weight in weights.items():
        if weight.ndim > 1:
            torch.testing.assert_close(first[name].flatten(1).norm(dim=1), weight.flatten(1).norm(dim=1))
            cosine = torch.cosine_similarity(first[name].flatten(), other[name].flatten(), dim=0)
            assert abs(cosine) < 0.9
        else:
            assert not first[name].any()
        assert torch.equal(first[name], again[name])


def test_a_quadratics_landscape_is_the_quadratic() -> None:
    model = nn.Linear(3, 2, dtype=torch.float64)
    before = model.weight.detach().clone()
    first, second = (filter_normalised_direction(model, seed) for seed in (0, 1))
    steps = [-1.0, -0.5, 0.0, 0.5, 1.0]
    surface = loss_surface(model, lambda: model.weight.square().sum().item(), first, second, steps)
    for i, b in enumerate(steps):
        for j, a in enumerate(steps):
            expected = (before + a * first["weight"] + b * second["weight"]).square().sum().item()
            assert surface[i, j] == pytest.approx(expected, rel=1e-12)
    assert np.diff(surface, 3, axis=0) == pytest.approx(0, abs=1e-9) and torch.equal(model.weight, before)


@pytest.mark.parametrize("batch_norm", ["running", "batch"])
def test_the_centre_is_the_measured_loss(checkpoint: str, batch_norm: str) -> None:
    found = checkpoint_landscape(checkpoint, images=6, points=3, radius=0.5, batch_norm=batch_norm)
    network = load_network(checkpoint)
    network.network.train(batch_norm == "batch")
    data = open_data(DataConfig(), "val").first(6)
    resize = training_protocol(network.network.input).resize_image
    batches = list(eval_loader(data, size_hw=(64, 64), resize=resize, batch=6))
    config = TrainConfig(model=SMALL, image_size=64)
    expected = batch_loss(network.network, batches, config, torch.device("cpu"))
    assert found.loss[1, 1] == pytest.approx(expected, rel=1e-5) and found.images == 6
    assert np.isfinite(found.loss).all() and len(np.unique(found.loss)) == 9


def test_a_landscape_refuses_what_it_cannot_draw(checkpoint: str) -> None:
    with pytest.raises(YolomishError, match="odd"):
        checkpoint_landscape(checkpoint, points=4)
    with pytest.raises(YolomishError, match=r"needs a \.pt"):
        checkpoint_landscape("yolov4.weights")


def test_a_random_linear_network_gives_a_plane_and_relu_folds() -> None:
    plane, folded, smooth = (output_landscape(name, points=41) for name in ("linear", "relu", "mish"))
    assert plane.roughness() < 1e-12 and np.diff(plane.values, 2, axis=0) == pytest.approx(0, abs=1e-9)
    bends = np.abs(np.diff(output_landscape("relu", points=401, layers=2, width=4).values, 2, axis=1))
    assert np.median(bends) < 1e-9 < bends.max()  # flat almost everywhere, sharp at its folds
    assert 0 < smooth.roughness() < folded.roughness()
    again = output_landscape("mish", points=41)
    assert np.array_equal(again.values, smooth.values)
    assert not np.array_equal(output_landscape("mish", points=41, seed=1).values, smooth.values)


def test_noise_is_numpys_on_the_images_own_range_whatever_the_batch() -> None:
    spec = InputSpec(size_hw=(64, 64), stride=1, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    found = NoisyInput(**vars(spec), sigma=0.1, seed=7).normalise(images)
    for n in range(3):
        rng = np.random.default_rng(np.random.SeedSequence(7, spawn_key=(Use.NOISE, 0, n)))
        noisy = (images[n].numpy() / 255 + 0.1 * rng.standard_normal((3, 64, 64), np.float32)).clip(0, 1)
        expected = (noisy - np.array(spec.mean)[:, None, None]) / np.array(spec.std)[:, None, None]
        assert found[n].numpy() == pytest.approx(expected, abs=1e-5)
    again = NoisyInput(**vars(spec), sigma=0.1, seed=7)
    assert torch.equal(torch.cat([again.normalise(images[:1]), again.normalise(images[1:])]), found)
    assert torch.equal(NoisyInput(**vars(spec), sigma=0.0).normalise(images), spec.normalise(images))


def test_no_noise_is_the_plain_evaluation_of_a_detector(checkpoint: str) -> None:
    loaded, data = load_network(checkpoint), open_data(DataConfig(), "val").first(2)
    points = noise_points(loaded.network, data, loaded.config, [0.0, 0.3])
    plain = evaluate(data.coco(), predict(pipeline_of(loaded.network, 64), data), data.names, data.category_ids).values
    assert points[0].values == {name: plain[name] for name in ("AP", "AP50", "AP75")} and [p.sigma for p in points] == [0.0, 0.3]
    assert type(loaded.network.input) is InputSpec
    assert noise_curve(checkpoint, [0.3], images=2, batch=1).points == points[1:]


def test_a_classifiers_accuracy_under_noise_is_a_plain_loops(tmp_path: Path) -> None:
    config = replace(TINY, data=coloured_squares(tmp_path / "data"), epochs=1)
    weights = [str(fit(replace(config, seed=seed), tmp_path / str(seed), log=lambda _: None).last) for seed in (0, 1)]
    command = ["landscape", "noise", *weights, "--sigmas", "0,0.4", "--batch", "4", "--output", str(tmp_path / "noise")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "noise" / "noise.json").read_text())
    assert (tmp_path / "noise" / "noise.png").stat().st_size > 10_000
    data = open_classes(config.data, "val")
    for path, points in zip(weights, found.values(), strict=True):
        network = load_network(path).network
        for point in points:
            right = []
            for n in range(len(data)):
                image = ClassProtocol(name="whole", crop=1.0).prepare(data.image(n), (32, 32)).transpose(2, 0, 1) / 255
                rng = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(Use.NOISE, 0, n)))
                noisy = (image + point["sigma"] * rng.standard_normal((3, 32, 32), np.float32)).clip(0, 1)
                noisy = (noisy - np.reshape(network.input.mean, (3, 1, 1))) / np.reshape(network.input.std, (3, 1, 1))
                (logits,) = network(torch.from_numpy(noisy).float()[None])
                right.append(int(logits.argmax()) == data.labels[n])
            assert point["top1"] == pytest.approx(np.mean(right)) and set(point) == {"sigma", "top1", "top5", "ece"}
    some = data.first(3)
    assert sorted(some.labels) == [0, 1, 2] and len(data.first(100)) == len(data)


def test_noise_refuses_detectors_beside_classifiers(checkpoint: str, tmp_path: Path) -> None:
    config = replace(TINY, data=coloured_squares(tmp_path / "data"), model=replace(TINY.model, num_classes=3))
    save_checkpoint(tmp_path / "c.pt", config=config, model=build_network(config.model), names=NAMES)
    command = ["landscape", "noise", checkpoint, str(tmp_path / "c.pt"), "--sigmas", "0", "--images", "2"]
    with pytest.raises(YolomishError, match=r"no common curve: .*best\.pt to detect, .*c\.pt to classify"):
        CliRunner().invoke(app, command, catch_exceptions=False)


def blobs(shuffle: bool = False) -> Task:
    """Three clusters apart, 120 points to train on and 120 held out; training labels shuffled where asked."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(240) % 3
    inputs = torch.eye(3)[labels] * 2 + 0.3 * torch.randn(240, 3, generator=generator)
    shown = labels[:120][torch.randperm(120, generator=generator)] if shuffle else labels[:120]
    return Task(train=inputs[:120], train_labels=shown, test=inputs[120:], test_labels=labels[120:], classes=3)


PLAIN = PlainConfig(depth=2, width=16, epochs=20, batch=30, dropout=0.0)


def test_plain_networks_learn_what_can_be_learnt_and_no_more() -> None:
    points = sweep(["mish", "relu"], "depth", [2], 2, PLAIN, blobs(), log=lambda _: None)
    assert len(points) == 4 and all(p.accuracy > 0.95 for p in points)
    assert train_plain(blobs(shuffle=True), "mish", 0, PLAIN) < 0.6  # labels shuffled: a third by chance
    assert train_plain(blobs(), "mish", 0, PLAIN) == points[0].accuracy


def test_every_optimizer_and_initialiser_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(PLAIN, epochs=30, depth=1)
    for over, least in (("optimizer", 0.6), ("initialiser", 0.95)):
        points = sweep(["mish"], over, VALUES[over], 1, config, blobs(), log=lambda _: None)
        assert [p.value for p in points] == list(VALUES[over]) and all(p.accuracy > least for p in points), points
    torch.manual_seed(0)
    weight = plain_network(64, 4, "mish", replace(PLAIN, width=64, initialiser="orthogonal"))[0].weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(64), atol=1e-5, rtol=0)
    he = plain_network(512, 4, "mish", replace(PLAIN, width=512, initialiser="kaiming_normal"))[0].weight
    assert he.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.02)  # arXiv:1502.01852
    made = []
    monkeypatch.setitem(OPTIMIZERS, "adam", lambda parameters: made.append(1) or torch.optim.Adam(parameters))
    train_plain(blobs(), "mish", 0, replace(PLAIN, epochs=1, optimizer="adam"))
    assert made


def test_a_sweep_changes_one_setting_and_is_checked_first() -> None:
    two = [train_plain(blobs(), "relu", 1, replace(PLAIN, lr=lr, epochs=2)) for lr in (0.001, 0.1)]
    points = sweep(["relu"], "lr", [0.001, 0.1], 2, replace(PLAIN, epochs=2), blobs(), log=lambda _: None)
    assert [p.accuracy for p in points if p.seed == 1] == two and two[0] != two[1]
    assert read_values("depth", ["3", "4"]) == (3, 4) and read_values("optimizer", []) == tuple(OPTIMIZERS)
    for over, values, words in (
        ("batch", [30, 500], "batch 500 is more than the 120"),
        ("optimizer", ["adm"], "did you mean 'adam'"),
        ("dropout", [1.0], "under 1, not"),
        ("lr", [0.1, float("inf")], "lr must be positive and finite"),
        ("batch", [1], "batch must be at least 2"),
        ("epochs", [10**25], "epochs must be at most 1,000,000"),
        ("depth", [10**9], "depth must be at most 10000"),
        ("width", [10**6], "million parameters, over the 1,000 million"),
    ):
        with pytest.raises(YolomishError, match=words):
            sweep(["mish"], over, values, 1, PLAIN, blobs(), log=lambda _: pytest.fail("trained"))
    with pytest.raises(YolomishError, match=r"unknown sweep 'widht'; did you mean 'width'"):
        read_values("widht", [])
    with pytest.raises(YolomishError, match="depth takes numbers"):
        read_values("depth", ["deep"])


def test_pictures_of_classes_are_a_sweeps_task(tmp_path: Path) -> None:
    task = picture_task(coloured_squares(tmp_path), side=8)
    assert task.train.shape == (12, 64) and task.test.shape == (6, 64) and task.classes == 3
    assert task.train.mean(1).abs().max() < 1e-4 and task.train_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_the_first_images_keep_their_annotations() -> None:
    data = open_data(DataConfig(), "val")
    few = data.first(3)
    assert few.image_ids == data.image_ids[:3] and set(few.coco().getImgIds()) == set(few.image_ids)
    assert len(few.coco().dataset["annotations"]) == sum(len(data.load(i).labels) for i in range(3))
    assert len(data.coco().getImgIds()) == 100


def test_landscape_commands_write_pictures_and_data(checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, Figure] = {}
    save = Figure.savefig

    def record(figure: Figure, path: Path, **options: object) -> None:
        drawn[Path(path).name[1:].partition(".part-")[0]] = figure
        save(figure, path, **options)

    monkeypatch.setattr(Figure, "savefig", record)
    runs = {
        "loss": [checkpoint, checkpoint, "--images", "2", "--points", "3"],
        "output": ["--acts", "mish,relu", "--points", "31"],
        "noise": [checkpoint, "--images", "2", "--sigmas", "0,0.1"],
        "sweep": ["--acts", "mish", "--over", "depth", "--values", "1,2", "--seeds", "1", "--epochs", "1", "--width", "8"],
    }
    names = {"loss": "loss_landscape", "output": "output_landscape", "noise": "noise", "sweep": "sweep"}
    for kind, options in runs.items():
        command = ["landscape", kind, *options, "--output", str(tmp_path / kind)]
        result = CliRunner().invoke(app, command, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        assert (tmp_path / kind / f"{names[kind]}.png").stat().st_size > 10_000
    data = {name: json.loads((tmp_path / kind / f"{name}.json").read_text()) for kind, name in names.items()}
    (points,) = data["noise"].values()
    panels = drawn["noise"].axes
    assert [axis.get_title() for axis in panels[:2]] == ["AP", "AP50"]
    for axis, key in zip(panels, ("AP", "AP50"), strict=False):
        assert axis.lines[0].get_xydata().tolist() == [[p["sigma"], p[key]] for p in points]
    cuts = [axis for axis in drawn["loss_landscape"].axes if axis.get_title() == "cut along the second direction"]
    assert cuts[0].lines[1].get_ydata().tolist() == [row[1] for row in data["loss_landscape"][1]["loss"]]
    pictures = [axis for axis in drawn["output_landscape"].axes if axis.images]
    assert [axis.get_title().split()[0] for axis in pictures] == ["mish", "relu"]
    dots = np.concatenate([c.get_offsets() for c in drawn["sweep"].axes[0].collections])
    assert dots.tolist() == [[i, p["accuracy"]] for i, p in enumerate(data["sweep"]["points"])]


def test_the_noise_curve_runs_on_the_device_asked_for(checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(noise, "noise_points", lambda network, *_, **options: asked.append(options["device"]) or [])
    monkeypatch.setattr(noise, "choose_device", lambda name: asked.append(name) or torch.device("cpu"))
    noise_curve(checkpoint, [0.0], device="cuda:1")
    assert asked == ["cuda:1", torch.device("cpu")]


def test_noise_refuses_data_of_other_classes(checkpoint: str, tmp_path: Path) -> None:
    with pytest.raises(YolomishError, match=r"has 4 classes, the data 2: wrong --data\?"):
        noise_curve(checkpoint, [0.0], data=noise_data(tmp_path, train=1, val=1))


def test_a_landscape_of_no_number_is_one_line() -> None:
    for wrong in (["--span", "nan"], ["--span", "inf"], ["--seed", "-1"], ["--acts", ","]):
        assert CliRunner().invoke(app, ["landscape", "output", *wrong]).exit_code
