"""Classification in the one training loop: data, samples, losses and metrics against torchvision, torch and scipy."""

import csv
import json
import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import all_ranks
from reference.classes import NAMES, TINY, coloured_squares
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.config import DataConfig, TrainConfig, check_train, load_data_config
from yolomish.data.classification import open_classes
from yolomish.data.classification.augment import Augmenter
from yolomish.data.classification.loader import train_loader
from yolomish.errors import YolomishError
from yolomish.networks.registry import outline
from yolomish.tasks.classification.loss import classification_loss
from yolomish.tasks.classification.metrics import (
    calibration,
    class_metrics,
    confusion_counts,
    expected_calibration_error,
    resampled_accuracy,
)
from yolomish.tasks.classification.protocol import ClassProtocol, covering, find_protocol
from yolomish.tasks.registry import find_task
from yolomish.training.loop import fit, try_out
from yolomish.training.optim import learning_rate
from yolomish.weights.checkpoint import read_checkpoint
from yolomish.weights.load import load_network

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def tiny(tmp_path: Path) -> TrainConfig:
    return replace(TINY, data=coloured_squares(tmp_path / "data"))


def silent(_: str) -> None:
    pass


def rows_of(ranks: list[int], labels: list[int], scores: list[float], taken: list[int]) -> list[dict]:
    return [
        {"image_id": i, "label": label, "rank": rank, "scores": [score], "classes": [place], "nll": 0.5}
        for i, (rank, label, score, place) in enumerate(zip(ranks, labels, scores, taken, strict=True))
    ]


def test_folders_lists_and_tables_name_the_same_images(tmp_path: Path) -> None:
    folders = coloured_squares(tmp_path)
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    theirs = ImageFolder(str(tmp_path / "train"))
    ours = open_classes(folders, "train")
    assert [(str(p), label) for p, label in zip(ours.paths, ours.labels, strict=True)] == theirs.samples
    assert ours.names == tuple(theirs.classes) == NAMES
    assert open_classes(load_data_config(str(tmp_path)), "val").paths == open_classes(folders, "val").paths
    with pytest.raises(YolomishError, match=r"taken whole, not by fraction 0\.5, split 0\.8: leave that out"):
        open_classes(replace(folders, fraction=0.5, split=0.8), "train")
    for split in ("train", "val"):
        data = open_classes(folders, split)
        (tmp_path / f"{split}.list").write_text("".join(f"{path}\n" for path in data.paths))
        with (tmp_path / f"{split}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(("class", "image"))
            table.writerows((data.names[k], path.relative_to(tmp_path)) for path, k in zip(data.paths, data.labels, strict=True))
    for kind, names in (("darknet", NAMES), ("csv", ()), ("csv", NAMES)):
        ending = "list" if kind == "darknet" else "csv"
        config = DataConfig(format=kind, root=str(tmp_path), train=f"train.{ending}", val=f"val.{ending}", names=names)
        for split in ("train", "val"):
            other = open_classes(config, split)
            assert (other.paths, other.labels, other.names) == (
                open_classes(folders, split).paths,
                open_classes(folders, split).labels,
                NAMES,
            )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train/purple/0.png", "holds no class's name"),
        ("train/red/green.png", "holds the names of green and red"),
        ("train/red/9.png", "does not exist"),
    ],
)
def test_a_list_names_the_line_that_is_wrong(line: str, words: str, tmp_path: Path) -> None:
    coloured_squares(tmp_path)
    (tmp_path / "train.list").write_text(f"train/red/0.png\n{line}\n")
    with pytest.raises(YolomishError, match=words):
        open_classes(DataConfig(format="darknet", root=str(tmp_path), train="train.list", names=NAMES), "train")


def test_what_is_missing_or_of_another_kind_is_named(tmp_path: Path) -> None:
    config = coloured_squares(tmp_path)
    with pytest.raises(YolomishError, match=r"unknown data format to classify 'coco'.*imagefolder"):
        open_classes(DataConfig(format="coco"), "train")
    with pytest.raises(YolomishError, match="cannot be read: No such file"):
        open_classes(replace(config, root=str(tmp_path / "none")), "train")
    link = tmp_path / "train" / "red" / "gone.png"
    link.symlink_to(tmp_path / "nothing")
    with pytest.raises(YolomishError, match=r"gone\.png does not exist"):
        open_classes(config, "train")
    link.unlink()
    os.mkfifo(link)  # whose reading would never end
    with pytest.raises(YolomishError, match=r"gone\.png is no file"):
        open_classes(config, "train")
    link.unlink()
    (tmp_path / "val" / "pink").mkdir()
    with pytest.raises(YolomishError, match="'pink', which is no class of train"):
        open_classes(config, "val")
    (tmp_path / "train.csv").write_text("a,b\n1,2\n")
    with pytest.raises(YolomishError, match="no columns image and class"):
        open_classes(DataConfig(format="csv", root=str(tmp_path), train="train.csv"), "train")


def test_an_unmixed_sample_is_torchvisions_own(tiny: TrainConfig) -> None:
    config = replace(tiny, degrees=10.0, exposure=1.5, saturation=1.4, hue=0.1, randaugment=9)
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    theirs = v2.Compose(
        [
            v2.RandomRotation(10, v2.InterpolationMode.BILINEAR, fill=114),
            v2.RandomResizedCrop((32, 24), (0.08, 1.0), (3 / 4, 4 / 3)),
            v2.RandomHorizontalFlip(0.5),
            v2.ColorJitter(brightness=(1 / 1.5, 1.5), saturation=(1 / 1.4, 1.4), hue=0.1),
            v2.RandAugment(magnitude=9, fill=114),
        ]
    )
    torch.manual_seed(3)
    ours = Augmenter(config, (32, 24), 3).single(image)
    torch.manual_seed(3)
    assert torch.equal(ours, theirs(torch.from_numpy(image).permute(2, 0, 1)))


@pytest.mark.parametrize("kind", ["mosaic", "mixup", "cutmix"])
def test_mixed_images_show_the_shares_that_their_targets_say(kind: str, tiny: TrainConfig) -> None:
    config = replace(tiny, crop_area=1.0, flip=0.0, exposure=1.0, saturation=1.0, **{kind: 1.0})
    augment = Augmenter(config, (20, 20), 4)
    values = [0, 80, 160, 240]
    others = iter(range(1, 4))

    def draw() -> tuple[np.ndarray, int]:
        label = next(others)
        return np.full((20, 20, 3), values[label], np.uint8), label

    image, shares = augment(np.full((20, 20, 3), 0, np.uint8), 0, draw, mixing=True)
    assert shares.sum() == pytest.approx(1) and (shares > 0).sum() == (4 if kind == "mosaic" else 2)
    if kind == "mixup":
        assert (image == round(80 * shares[1].item())).all()
    else:
        seen = [(image[0] == value).float().mean().item() for value in values]
        assert seen == pytest.approx(shares.tolist())
    plain, own = augment(np.full((20, 20, 3), 0, np.uint8), 0, draw, mixing=False)
    assert not plain.any() and own.tolist() == [1, 0, 0, 0]


def test_workers_processes_and_mini_batches_change_no_sample(tiny: TrainConfig) -> None:
    config = replace(tiny, mixup=0.3, cutmix=0.3, mosaic=0.3, randaugment=5, degrees=5.0)
    data = open_classes(config.data, "train")

    def batches(config: TrainConfig, **where: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(b.images, b.targets) for b in train_loader(data, config, 1, epoch=1, **where)]

    before = torch.random.get_rng_state()
    whole = batches(config)
    assert torch.equal(torch.random.get_rng_state(), before)  # the loop's own chance is left alone
    workers = batches(replace(config, workers=2))
    assert all(torch.equal(a, b) for x, y in zip(whole, workers, strict=True) for a, b in zip(x, y, strict=True))
    later = batches(config, first_step=1)
    assert torch.equal(later[0][0], whole[1][0])
    small = batches(replace(config, mini_batch=2))
    assert torch.equal(torch.cat([images for images, _ in small[:3]]), whole[0][0])
    halves = [batches(config, rank=r, world_size=2)[0][0] for r in (0, 1)]
    assert torch.equal(torch.stack(halves, 1).flatten(0, 1), whole[0][0])
    assert not torch.equal(batches(replace(config, seed=1))[0][0], whole[0][0])


def test_pixels_kept_on_disk_make_the_same_samples_and_torch_does_not_warn(
    tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLOMISH_CACHE", str(tmp_path / "cache"))
    plain, kept = open_classes(tiny.data, "train"), open_classes(tiny.data, "train")
    kept.keep_on_disk()
    was = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # it says so once in a process
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            batches = [list(train_loader(data, tiny, 1, epoch=0)) for data in (plain, kept)]
    finally:
        torch.set_warn_always(was)
    assert all(torch.equal(a.images, b.images) for a, b in zip(*batches, strict=True)) and batches[0]


def test_the_loss_is_the_cross_entropy_of_smoothed_targets() -> None:
    logits, labels = torch.randn(5, 7), torch.randint(7, (5,))
    shares = torch.nn.functional.one_hot(labels, 7).float()
    theirs = torch.nn.CrossEntropyLoss(label_smoothing=0.1, reduction="sum")(logits, labels)
    assert classification_loss(logits, shares, 0.1).total.item() == pytest.approx(theirs.item(), rel=1e-6)
    mixed = shares.roll(1, 0) * 0.3 + shares * 0.7
    by_hand = -(mixed * logits.log_softmax(1)).sum()
    assert classification_loss(logits, mixed, 0.0).total.item() == pytest.approx(by_hand.item(), rel=1e-6)


def test_poly_is_darknets_rate() -> None:
    config = TrainConfig(schedule="poly", peak_lr=0.1, poly_power=4)
    rates = [learning_rate(step, 100, 10, config) for step in (5, 10, 50, 100)]
    assert rates == pytest.approx([0.1 * 0.5**4, 0.1 * 0.9**4, 0.1 * 0.5**4, 0.0])  # src/network.c get_current_rate


def test_accuracy_confusion_and_calibration_are_counted() -> None:
    rows = rows_of([0, 0, 3, 6, 0], [0, 0, 0, 1, 2], [0.9, 0.95, 0.4, 1.0, 0.4], [0, 0, 2, 0, 2])
    metrics = class_metrics(rows, ("a", "b", "c", "d"))
    assert metrics.values["top1"] == pytest.approx(0.6) and metrics.values["top5"] == pytest.approx(0.8)
    assert metrics.per_class == {"a": pytest.approx(2 / 3), "b": 0.0, "c": 1.0, "d": -1.0}
    assert confusion_counts(rows, 4).tolist() == [[2, 0, 1, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    # 0.4 twice in (6/15, 7/15]'s neighbour (5/15, 6/15], one right; 0.9 alone, 0.95 and 1.0 together, one right
    gaps = 2 * abs(0.4 - 0.5) + abs(0.9 - 1) + 2 * abs(0.975 - 0.5)
    assert expected_calibration_error(rows) == pytest.approx(gaps / 5)
    assert calibration(rows)[:, 0].sum() == 5


def test_a_perfectly_calibrated_forecast_has_no_error() -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.2, 1, 40_000)
    ranks = (rng.random(40_000) > scores).astype(int)
    zeros = [0] * len(scores)
    assert expected_calibration_error(rows_of(ranks.tolist(), zeros, scores.tolist(), zeros)) < 0.01
    assert expected_calibration_error(rows_of(ranks.tolist(), zeros, np.sqrt(scores).tolist(), zeros)) > 0.1


def test_resampled_accuracy_is_that_of_the_drawn_images() -> None:
    rng = np.random.default_rng(0)
    ranks, labels = rng.integers(0, 8, 30).tolist(), rng.integers(0, 3, 30).tolist()
    rows = rows_of(ranks, labels, [0.5] * 30, [0] * 30)
    drawn = rng.integers(0, 30, (4, 30))
    weights = np.stack([np.bincount(row, minlength=30) for row in drawn])
    found = resampled_accuracy(rows, 4, weights)
    for place, chosen in enumerate(drawn):
        again = class_metrics([rows[i] for i in chosen], ("a", "b", "c", "d"))
        assert found[place, :2] == pytest.approx([again.values["top1"], again.values["top5"]])
        assert np.nan_to_num(found[place, 2:], nan=-1) == pytest.approx(list(again.per_class.values()))


@pytest.mark.parametrize("size_hw", [(40, 64), (64, 40), (48, 48), (31, 33)])
def test_the_middle_crop_is_torchvisions_preset(size_hw: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    theirs = v2.Compose([v2.Resize(round(28 / 0.875)), v2.CenterCrop(28)])(torch.from_numpy(image).permute(2, 0, 1))
    ours = find_protocol("torchvision").prepare(image, (28, 28))
    assert np.array_equal(ours, theirs.permute(1, 2, 0).numpy())


def test_darknets_protocol_resizes_to_the_shorter_side_and_cuts_out_the_middle() -> None:
    image = np.random.default_rng(1).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    ours = find_protocol("darknet").prepare(image, (10, 10))
    # src/image.c resize_min: 10 x 15 (31 * 10 / 20 in whole numbers); crop_image from (15 - 10) / 2 = 2
    assert ours.shape == (10, 10, 3) and ours.dtype == np.float32
    place = 2 * (30 / np.float32(14))  # column 0 of the crop is column 2, between source columns 4 and 5
    assert ours[0, 0] == pytest.approx((1 - place % 1) * image[0, 4] + place % 1 * image[0, 5], rel=1e-4)
    assert find_protocol("darknet").prepare(image, (20, 20)).tolist() == image[:, 5:25].tolist()  # nothing to resize


def test_a_network_that_is_no_square_is_covered() -> None:
    assert covering((100, 100), (20, 40)) == (40, 40) and covering((50, 200), (20, 40)) == (20, 80)
    assert ClassProtocol(name="x", crop=1.0).prepare(np.zeros((50, 60, 3), np.uint8), (20, 40)).shape == (20, 40, 3)


def test_it_overfits_a_few_pictures(tiny: TrainConfig, tmp_path: Path) -> None:
    # all of them in each step: batch norms of few images depend on which classes meet
    config = replace(tiny, epochs=30, eval_every=30, batch=12, image_size=64, crop_area=1.0, exposure=1.0, saturation=1.0)
    config = replace(config, ema=False, model=replace(config.model, bn_momentum=0.3))
    result = fit(config, tmp_path / "run", log=silent)
    assert result.metrics.values["top1"] == 1 and result.history[-1]["train/class_loss"] < 0.1
    assert result.columns == ("top1", "top5", "ece")
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"best.pt", "last.pt", "results.csv", "timing.csv", "curves.png", "train_batch0.jpg"} <= files


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_an_interrupted_run_has_the_bits_of_a_whole_one(tiny: TrainConfig, tmp_path: Path, amp: str) -> None:
    config = replace(tiny, amp=amp, mixup=0.5, cutmix=0.5, adversarial=0.01, epochs=3)
    whole = fit(config, tmp_path / "whole", log=silent)

    def interrupt(text: str) -> None:
        if text.startswith("epoch 2/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(config, tmp_path / "parts", log=interrupt)
    parts = fit(config, tmp_path / "parts", resume=True, log=silent)
    assert (tmp_path / "whole" / "results.csv").read_bytes() == (tmp_path / "parts" / "results.csv").read_bytes()
    first, second = read_checkpoint(whole.last), read_checkpoint(parts.last)
    assert all(torch.equal(first[k][n], second[k][n]) for k in ("model", "ema") for n in first[k])


def test_two_processes_train_and_evaluate_as_one(tiny: TrainConfig, tmp_path: Path) -> None:
    config = replace(tiny, epochs=1, mixup=0.5)
    fit(config, tmp_path / "one", log=silent)
    assert all_ranks(tmp_path, fit, config, tmp_path / "two") == [0, 0]
    first, second = (read_checkpoint(tmp_path / n / "last.pt")["progress"]["history"][0] for n in ("one", "two"))
    assert second == pytest.approx(first, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mosaic": 0.5, "mixup": 0.5, "cutmix": 0.1}, "at most 1 together"),
        ({"hue": 0.6}, "hue must be between 0 and 0.5"),
        ({"partners": "batch"}, "partners batch is for detectors"),
        ({"crop_area": 0.0}, "crop_area must be"),
    ],
)
def test_what_cannot_be_is_refused_before_training(changes: dict, words: str, tiny: TrainConfig) -> None:
    config = replace(tiny, **changes)
    with pytest.raises(YolomishError, match=words):
        check_train(config)
        find_task("classify").check(config, outline(config.model))


def test_detectors_and_classifiers_are_told_apart(tiny: TrainConfig) -> None:
    detector = TrainConfig().model
    with pytest.raises(YolomishError, match="is a detector: --task detect"):
        find_task("classify").check(tiny, outline(detector))
    with pytest.raises(YolomishError, match="a classifier finds no boxes"):
        find_task("detect").check(tiny, outline(tiny.model))


def test_a_trial_says_what_a_batch_takes_and_writes_nothing(tiny: TrainConfig) -> None:
    lines: list[str] = []
    try_out(tiny, log=lines.append)
    assert any("labels: 12 images of 3 classes: " in line for line in lines)
    assert "one mini-batch of 6 at 32 px with 6 targets: class " in lines[-1]


def test_the_command_trains_from_a_folder(tiny: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(
        "name: tiny\narchitecture: resnet18\nwidth: 0.125\nactivation: relu\nneck_activation: ''\nanchors: []\nscale_xy: []\n"
    )
    options = f"--task classify --model {tmp_path}/tiny.yaml --act mish --data {tmp_path}/data --epochs 1 --batch 6 --imgsz 32"
    where = ["--workers", "0", "--device", "cpu", "--output", str(tmp_path / "runs")]
    done = CliRunner().invoke(app, ["train", *options.split(), *where])
    assert done.exit_code == 0, done.output
    assert "top1 " in done.stdout and (tmp_path / "runs" / "tiny-mish" / "best.pt").is_file()
    assert "tiny (mish stem, mish stages), " in done.stderr


def test_a_darknet_cfg_is_trained_and_evaluated_as_one(tmp_path: Path) -> None:
    coloured_squares(tmp_path / "data")
    cfg = tmp_path / "small.cfg"
    head = "[avgpool]\n[convolutional]\nfilters=1000\nsize=1\nactivation=linear\n[softmax]\n"
    block = "[convolutional]\nbatch_normalize=1\nfilters=8\nsize=3\nstride=2\npad=1\nactivation=leaky\n"
    cfg.write_text(f"[net]\nwidth=24\nheight=24\nchannels=3\n{block}{block}{head}")
    options = f"--task classify --model {cfg} --act mish --data {tmp_path}/data --epochs 1 --batch 6 --imgsz 32 --device cpu"
    where = ["--workers", "0", "--output", str(tmp_path / "runs"), "--name", "x"]
    done = CliRunner().invoke(app, ["train", *options.split(), *where])
    assert done.exit_code == 0, done.output
    assert "small (mish backbone), 0.00 M parameters" in done.stderr and "3 classes" in done.stderr
    weights = str(tmp_path / "runs" / "x" / "best.pt")
    done = CliRunner().invoke(app, ["eval", "--weights", weights, "--data", f"{tmp_path}/data", "--output", f"{tmp_path}/e"])
    assert done.exit_code == 0 and "top1 red" in done.stdout, done.output
    cfg.write_text(cfg.read_text().replace("[avgpool]\n[convolutional]\nfilters=1000\nsize=1", "[connected]\noutput=1000"))
    done = CliRunner().invoke(app, ["train", *options.split(), *where])
    assert isinstance(done.exception, YolomishError) and "small does not take images of 32 px" in str(done.exception)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/ and run/ of a network that was trained on it for an epoch."""
    root = tmp_path_factory.mktemp("trained")
    config = replace(TINY, data=coloured_squares(root / "data", val=7), epochs=1, eval_crop=0.875)
    fit(config, root / "run", log=silent)
    return root


def test_eval_states_its_protocol_and_counts_as_a_plain_loop_does(trained: Path, tmp_path: Path) -> None:
    weights = str(trained / "run" / "last.pt")
    done = CliRunner().invoke(
        app, ["eval", "--weights", weights, "--data", str(trained / "data"), "--output", str(tmp_path / "e"), "--device", "cpu"]
    )
    assert done.exit_code == 0, done.output
    line = "protocol training: shorter side 37 px (linear), middle 32 px, one view, 21 images of val (val)"
    assert line in done.stdout
    found = json.loads((tmp_path / "e" / "metrics.json").read_text())
    recorded = read_checkpoint(weights)["progress"]["history"][-1]
    assert [found[k] for k in ("top1", "top5", "ece")] == pytest.approx(
        [recorded[f"metrics/{k}"] for k in ("top1", "top5", "ece")]
    )
    network = load_network(weights).network
    images = ImageFolder(str(trained / "data" / "val"), v2.Compose([v2.PILToTensor(), v2.Resize(37), v2.CenterCrop(32)]))
    with torch.no_grad():
        logits = torch.cat([network(network.input.normalise(image[None]))[0] for image, _ in images])
    labels = torch.tensor(images.targets)
    assert found["top1"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    assert found["nll"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    for label, name in enumerate(NAMES):
        assert found["per_class"][name] == pytest.approx((logits.argmax(1) == label)[labels == label].float().mean().item())
    files = {path.name for path in (tmp_path / "e").iterdir()}
    assert files == {"metrics.json", "results.json", "confusion_matrix.png", "confusion_matrix.json", "calibration.png"}
    counts = np.array(json.loads((tmp_path / "e" / "confusion_matrix.json").read_text())["counts"])
    assert counts.sum(1).tolist() == [7, 7, 7] and counts.trace() / 21 == pytest.approx(found["top1"])


def test_eval_of_a_classifier_by_darknets_protocol_and_what_it_refuses(trained: Path, tmp_path: Path) -> None:
    base = [
        "eval",
        "--weights",
        str(trained / "run" / "last.pt"),
        "--data",
        str(trained / "data"),
        "--output",
        str(tmp_path / "e"),
    ]
    done = CliRunner().invoke(app, [*base, "--protocol", "darknet", "--json", "--no-plots"])
    assert done.exit_code == 0 and json.loads(done.stdout)["protocol"] == {
        "name": "darknet",
        "crop": 1.0,
        "interpolation": "darknet",
    }
    wrong = CliRunner().invoke(app, [*base, "--iou", "0.5"])
    assert isinstance(wrong.exception, YolomishError) and "is a classifier: leave out --iou" in str(wrong.exception)
    wrong = CliRunner().invoke(app, [*base, "--protocol", "darknt"])
    assert isinstance(wrong.exception, YolomishError) and "did you mean 'darknet'" in str(wrong.exception)
    coloured_squares(tmp_path / "two")
    for split in ("train", "val"):
        shutil.rmtree(tmp_path / "two" / split / "red")
    wrong = CliRunner().invoke(app, [*base[:3], "--data", str(tmp_path / "two")])
    assert "has 3 classes, the data 2" in str(wrong.exception)
