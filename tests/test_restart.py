"""Runs that are killed, stopped, split over processes or out of disk: the same result, or a clear word."""

from __future__ import annotations

import copy
import os
import random
import resource
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from conftest import noise_data
from processes import Started, all_ranks
from reference.comparison import MODEL
from torch.nn.parallel import DistributedDataParallel

from yolomish.config import ModelConfig, TrainConfig
from yolomish.errors import YolomishError
from yolomish.files import replace_file
from yolomish.networks import build_network
from yolomish.nn.sync_norm import synchronise_norms
from yolomish.tasks.detection.loss import detection_loss
from yolomish.training.build import prepare
from yolomish.training.loop import Terminated, fit
from yolomish.weights.checkpoint import read_checkpoint

pytestmark = pytest.mark.usefixtures("undrawn")


def fit_or_resume(config: TrainConfig, out: Path) -> None:
    try:
        fit(config, out, resume=(out / "last.pt").exists())
    except Terminated:
        sys.exit(143)


def start(config: TrainConfig, out: Path) -> Started:
    return Started(out.parent / "errors.txt", fit_or_resume, config, out)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    data = noise_data(tmp_path_factory.mktemp("noise") / "data", train=12, val=4)
    return TrainConfig(
        model=MODEL, data=data, image_size=64, epochs=3, batch=4, mini_batch=2, burn_in=2, workers=0, device="cpu", dropblock=0.1
    )


@pytest.fixture(scope="module")
def whole(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was not stopped."""
    return fit(config, tmp_path_factory.mktemp("whole") / "run", log=lambda _: None).last.parent


def assert_same_run(a: Path, b: Path) -> None:
    assert (a / "results.csv").read_bytes() == (b / "results.csv").read_bytes()
    first, second = read_checkpoint(a / "last.pt"), read_checkpoint(b / "last.pt")
    for part in ("model", "ema"):
        assert all(torch.equal(first[part][k], second[part][k]) for k in first[part])
    buffers = [[s["momentum_buffer"] for s in c["optimizer"]["state"].values()] for c in (first, second)]
    assert all(torch.equal(x, y) for x, y in zip(*buffers, strict=True))


def test_sigkill_at_any_moment_changes_no_bit(config: TrainConfig, whole: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    rng = random.Random(0)
    process = start(replace(config, workers=1), killed)  # the number of workers changes nothing either
    for moment in ("write", "random", "write"):
        deadline = time.monotonic() + 120
        if moment == "write":  # in the middle of a checkpoint
            while process.poll() is None and not list(killed.glob(".last.part-*")) and time.monotonic() < deadline:
                pass
        else:
            while process.poll() is None and not (killed / "last.pt").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 1))
        assert process.kill() in (-signal.SIGKILL, 0)
        process = start(config, killed)
    assert process.wait() == 0
    assert_same_run(whole, killed)
    assert not [path for path in killed.glob(".*") if path.name != ".lock"]


def test_sigterm_saves_in_mid_epoch_and_resume_changes_no_bit(config: TrainConfig, whole: Path, tmp_path: Path) -> None:
    stopped = tmp_path / "stopped"
    process = start(replace(config, cache="ram", workers=1), stopped)
    while not (stopped / "train_batch0.jpg").exists():
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGTERM)  # as a terminal or a cluster does: every process of the group
    assert process.wait() == 143
    progress = read_checkpoint(stopped / "last.pt")["progress"]
    assert progress["epoch"] == 0 and 0 < progress["position"] < 3
    assert progress["images_seen"] == 4 * progress["position"]
    assert start(config, stopped).wait() == 0
    assert_same_run(whole, stopped)


def compare_gradients() -> None:
    """In each of two processes: their gradients together are those of all images in one."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    two = build_network(ModelConfig(width=0.125, depth=0.1, num_classes=2)).double()
    one, images = copy.deepcopy(two), torch.rand(6, 3, 64, 64).double()
    rows = [[i % 6, i % 2, 5.0 + i, 20 - i, 25 + 4 * i, 40 + i] for i in range(9)]
    targets = torch.tensor(rows)
    mine = targets[targets[:, 0] % 2 == rank].clone()
    mine[:, 0] = (mine[:, 0] - rank) / 2
    configs = [
        TrainConfig(loss=loss, assignment=assignment) for loss, assignment in (("scaled", "ratio"), ("darknet", "shape-iou"))
    ]
    wrapped = DistributedDataParallel(synchronise_norms(two, torch.device("cpu")), broadcast_buffers=False)
    gradients = []
    for config in configs:
        wrapped.zero_grad()
        (2 * detection_loss(wrapped(images[rank::2]), two.heads, mine, config).total).backward()
        gradients.append([p.grad.clone() for p in two.parameters()])
    dist.destroy_process_group()  # alone from here
    for config, ours in zip(configs, gradients, strict=True):
        one.zero_grad()
        detection_loss(one(images), one.heads, targets, config).total.backward()
        for (name, b), a in zip(one.named_parameters(), ours, strict=True):
            assert (a - b.grad).norm() <= 1e-4 * b.grad.norm(), (config.loss, name)
    assert not all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    for a, b in zip(two.buffers(), one.buffers(), strict=True):
        torch.testing.assert_close(a, b)


def test_two_processes_have_the_gradient_of_one_by_each_loss(tmp_path: Path) -> None:
    assert all_ranks(tmp_path, compare_gradients) == [0, 0]


def test_two_processes_train_and_evaluate_as_one(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, dropblock=0.0, epochs=1, batch=12, mini_batch=12)
    fit(config, tmp_path / "one", log=lambda _: None)
    assert all_ranks(tmp_path, fit, config, tmp_path / "two") == [0, 0]
    first, second = (read_checkpoint(tmp_path / n / "last.pt")["progress"]["history"][0] for n in ("one", "two"))
    assert second == pytest.approx(first, rel=1e-3, abs=1e-6)
    names = {n: sorted(p.name.split(".tfevents.")[0] for p in (tmp_path / n).iterdir()) for n in ("one", "two")}
    assert names["one"] == names["two"]  # one writer


def write_more_than_fits(path: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    with pytest.raises(YolomishError, match=r"last\.pt cannot be written"):
        replace_file(path, lambda part: torch.save(torch.zeros(1 << 20), part))


def test_a_full_disk_is_named_and_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run" / "last.pt"
    path.parent.mkdir()
    path.write_bytes(b"good")
    assert Started(tmp_path / "errors.txt", write_more_than_fits, path).wait() == 0
    assert path.read_bytes() == b"good" and [p.name for p in path.parent.iterdir()] == ["last.pt"]


def test_an_unwritable_folder_is_named(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(YolomishError, match=r"file/run cannot be made: .*; name another"):
        fit(config, tmp_path / "file" / "run", log=lambda _: None)


def test_frozen_parts_do_not_move(config: TrainConfig, tmp_path: Path) -> None:
    frozen = replace(config, freeze=("backbone",), dropblock=0.0, epochs=1)
    run = prepare(frozen, lambda _: None)
    before = {k: v.clone() for k, v in run.network.state_dict().items()}
    result = fit(frozen, tmp_path / "run", log=lambda _: None)
    after = read_checkpoint(result.last)["model"]
    changed = {k.split(".")[0] for k in before if not torch.equal(before[k], after[k])}
    assert changed == {"reduce", "ups", "head_layers"}
    with pytest.raises(YolomishError, match=r"freeze: 'spine' is neither a part nor a module of tiny: backbone, neck, head"):
        prepare(replace(frozen, freeze=("spine",)), lambda _: None)


def test_adversarial_images_hide_objects_and_stay_in_range(config: TrainConfig) -> None:
    run = prepare(replace(config, adversarial=0.02), lambda _: None)
    images = torch.rand(2, 3, 64, 64)
    attacked = run.attacked(images.clone())
    assert 0 <= attacked.min() and attacked.max() <= 1 and (attacked - images).abs().max() <= 0.0201
    with torch.no_grad():
        seen = [run.losses(x, torch.zeros((0, 6))).parts["objectness"].item() for x in (images, attacked)]
    assert seen[1] < seen[0]
