"""Assignment, loss, schedule, checkpoints and the training loop."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from yolomish.config import DataConfig, ModelConfig, TrainConfig, from_dict
from yolomish.errors import YolomishError
from yolomish.training.assign import assign
from yolomish.training.loss import detection_loss
from yolomish.training.optim import EMA, build_optimizer, burn_in_steps, learning_rate
from yolomish.types import HeadSpec

HEADS = (
    HeadSpec(anchors=((8, 8), (16, 16), (24, 24)), stride=8, num_classes=2, scale_xy=1.2),
    HeadSpec(anchors=((200, 20), (20, 200), (48, 48)), stride=16, num_classes=2, scale_xy=1.1),
    HeadSpec(anchors=((100, 100), (300, 300), (400, 400)), stride=32, num_classes=2, scale_xy=1.05),
)
GRIDS = ((8, 8), (4, 4), (2, 2))
CONFIG = TrainConfig()


def target(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)


def raw_maps(fill: float = 0.0, batch: int = 1) -> list[torch.Tensor]:
    return [torch.full((batch, 21, h, w), fill, requires_grad=True) for h, w in GRIDS]


def test_assignment_takes_best_and_every_anchor_above_the_threshold() -> None:
    found = assign(target((0, 1, 24, 8, 40, 24)), HEADS, GRIDS)  # 16x16 centred on (32, 16), a cell border
    # shape IoU: 8x8 0.25, 16x16 1, 24x24 0.44; 48x48 0.11
    assert found[0].anchors.tolist() == [0, 1, 2]
    assert found[0].columns.tolist() == [4, 4, 4] and found[0].rows.tolist() == [2, 2, 2]
    assert found[0].labels.tolist() == [1, 1, 1]
    assert len(found[1]) == len(found[2]) == 0


def test_assignment_clamps_a_centre_on_the_image_edge() -> None:
    found = assign(target((0, 0, 56, 56, 72, 72)), HEADS, GRIDS)
    assert set(found[0].columns.tolist()) == {7} and set(found[0].rows.tolist()) == {7}


def test_assignment_keeps_a_poorly_shaped_box_on_its_best_anchor_alone() -> None:
    found = assign(target((0, 0, 0, 30, 1, 34)), HEADS, GRIDS)
    assert [len(f) for f in found] == [1, 0, 0]


def test_assignment_keeps_both_objects_of_one_cell_and_none_of_none() -> None:
    found = assign(target((0, 0, 24, 8, 40, 24), (0, 1, 25, 8, 41, 24)), HEADS, GRIDS)
    assert len(found[0]) == 6 and sorted(found[0].labels.tolist()) == [0, 0, 0, 1, 1, 1]
    assert all(len(f) == 0 for f in assign(target(), HEADS, GRIDS))


def test_loss_without_targets_is_objectness_alone_and_backward_works() -> None:
    maps = raw_maps(batch=2)
    parts = detection_loss(maps, HEADS, target(), CONFIG)
    assert parts.box.item() == 0 and parts.classes.item() == 0
    assert parts.objectness.item() == pytest.approx(2 * 5.4 * math.log(2), rel=1e-5)
    parts.total.backward()
    assert all(m.grad is not None and torch.isfinite(m.grad).all() for m in maps)


def test_loss_gradient_reaches_box_objectness_and_class_of_a_positive() -> None:
    maps = raw_maps()
    detection_loss(maps, HEADS, target((0, 1, 22, 9, 40, 27)), CONFIG).total.backward()
    gradient = maps[0].grad.reshape(3, 7, 8, 8)[1, :, 2, 3]  # centre (31, 18)
    assert (gradient[[0, 1, 2, 3, 4, 5, 6]].abs() > 0).all()
    assert gradient[6] < 0 < gradient[5]


def test_perfect_prediction_has_no_box_loss() -> None:
    maps = raw_maps()
    with torch.no_grad():  # 16x16 at the centre of cell (3, 2): zero logits are exact for anchor 1
        for anchor, size in enumerate((8, 16, 24)):
            maps[0].view(3, 7, 8, 8)[anchor, 2:4] = math.log(16 / size)
    assert detection_loss(maps, HEADS, target((0, 1, 20, 12, 36, 28)), CONFIG).box.item() < 1e-5


def test_ignored_prediction_has_no_objectness_gradient() -> None:
    maps = raw_maps()
    with torch.no_grad():  # the neighbour (4, 2) predicts 40x40 beside its centre: IoU 40x40 shifted by 4 px is over 0.7
        maps[0].view(3, 7, 8, 8)[1, 2:4, 2, 4] = math.log(40 / 16)
    detection_loss(maps, HEADS, target((0, 1, 12, 0, 52, 40)), CONFIG).total.backward()
    gradient = maps[0].grad.reshape(3, 7, 8, 8)[1, 4]
    assert gradient[2, 4] == 0 and gradient[2, 6] > 0


def test_objects_on_one_anchor_share_their_labels() -> None:
    maps = raw_maps()
    detection_loss(maps, HEADS, target((0, 0, 20, 12, 36, 28), (0, 1, 21, 12, 37, 28)), CONFIG).total.backward()
    assert (maps[0].grad.reshape(3, 7, 8, 8)[1, 5:, 2, 3] < 0).all()


def test_half_maps_give_a_float32_loss() -> None:
    maps = [m.detach().to(torch.bfloat16) for m in raw_maps()]
    parts = detection_loss(maps, HEADS, target((0, 1, 20, 12, 36, 28)), CONFIG)
    assert parts.total.dtype == torch.float32 and torch.isfinite(parts.total)


def test_learning_rate_is_quartic_then_cosine() -> None:
    config = replace(CONFIG, peak_lr=1.0, burn_in=100, final_lr_fraction=0.1)
    assert learning_rate(50, 1000, config) == pytest.approx(1 / 16)
    assert learning_rate(100, 1000, config) == 1.0
    assert learning_rate(550, 1000, config) == pytest.approx(0.55)
    assert learning_rate(1000, 1000, config) == pytest.approx(0.1)
    assert burn_in_steps(50, config) == 10 and learning_rate(1, 1, config) > 0


def test_only_kernels_decay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.PReLU(4))
    decayed, plain = build_optimizer(model, CONFIG).param_groups
    assert [p.shape for p in decayed["params"]] == [model[0].weight.shape] and decayed["weight_decay"] > 0
    assert len(plain["params"]) == 4 and plain["weight_decay"] == 0


def test_ema_ramps_and_covers_buffers() -> None:
    model = nn.BatchNorm2d(1)
    ema = EMA(model, 0.9)
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.running_mean.fill_(2.0)
        model.num_batches_tracked.fill_(5)
    ema.update(model)
    decay = 0.9 * (1 - math.exp(-1 / 200))
    assert ema.model.weight.item() == pytest.approx(3 - 2 * decay)
    assert ema.model.running_mean.item() == pytest.approx(2 - 2 * decay)
    assert ema.model.num_batches_tracked.item() == 5


def test_unknown_config_key_is_refused() -> None:
    with pytest.raises(YolomishError, match="peak_lr"):
        from_dict(TrainConfig, {"peek_lr": 0.1})


def test_files_that_are_no_checkpoint_are_named(tmp_path: Path) -> None:
    from yolomish.training.checkpoint import read_checkpoint

    for name, content in (("a.pt", b"<!DOCTYPE html>"), ("b.pt", b"rubbish"), ("c.pt", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(YolomishError, match=name):
            read_checkpoint(tmp_path / name)
    torch.save({"model": 1}, tmp_path / "d.pt")
    with pytest.raises(YolomishError, match="another program"):
        read_checkpoint(tmp_path / "d.pt")
    with pytest.raises(YolomishError, match="no such"):
        read_checkpoint(tmp_path / "e.pt")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    from yolomish.training.checkpoint import replace_file

    path = tmp_path / "x.pt"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_file(path, fail)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.fixture
def tiny(tmp_path: Path) -> TrainConfig:
    rng = np.random.default_rng(0)
    root = tmp_path / "data"
    for split, count in (("train", 4), ("val", 2)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            cv2.imwrite(str(root / "images" / split / f"{i}.png"), rng.integers(0, 255, (64, 64, 3), np.uint8))
            (root / "labels" / split / f"{i}.txt").write_text(f"{i % 2} 0.5 0.5 0.4 0.3\n")
    data = DataConfig(format="yolo", root=str(root), train="images/train", val="images/val", names=("a", "b"))
    model = ModelConfig(name="yolov4-n", width=0.125, depth=0.25)
    return TrainConfig(model=model, data=data, image_size=64, epochs=2, batch=2, workers=0, device="cpu")


def losses(history: list[dict]) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in ("step_ms", "seconds")} for row in history]


def assert_equal(a: object, b: object, where: str = "") -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            if key not in ("step_ms", "seconds"):
                assert_equal(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}/{i}")
    else:
        assert a == b, where


def test_resume_gives_the_bits_of_an_uninterrupted_run(tiny: TrainConfig, tmp_path: Path) -> None:
    from yolomish.training.checkpoint import load_network, read_checkpoint
    from yolomish.training.fit import fit

    whole = fit(tiny, tmp_path / "whole", log=lambda _: None)

    lines: list[str] = []

    def interrupt(line: str) -> None:
        lines.append(line)
        if line.startswith("epoch 1/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(tiny, tmp_path / "parts", log=interrupt)
    assert f"--resume {tmp_path / 'parts'}" in lines[-1]
    with pytest.raises(YolomishError, match=r"peak_lr .*seed"):
        fit(replace(tiny, peak_lr=0.5, seed=3), tmp_path / "parts", resume=True, log=lambda _: None)
    parts = fit(tiny, tmp_path / "parts", resume=True, log=lambda _: None)
    assert losses(whole.history) == losses(parts.history)
    for name in ("last.pt", "best.pt"):
        assert_equal(read_checkpoint(tmp_path / "whole" / name), read_checkpoint(tmp_path / "parts" / name), name)
    for name in ("results.csv", "config.yaml", "curves.png", "train_batch0.jpg"):
        assert (tmp_path / "whole" / name).is_file()
    network = load_network(str(whole.best))
    assert network.names == ("a", "b") and network.image_size == 64 and not network.model.training
    with pytest.raises(YolomishError, match="already holds a run"):
        fit(tiny, tmp_path / "whole", log=lambda _: None)


def test_non_finite_loss_stops_and_leaves_last(tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from yolomish.training import fit as module

    calls = 0

    def spoiled(*args, **kwargs):
        nonlocal calls
        calls += 1
        parts = detection_loss(*args, **kwargs)
        return replace(parts, box=parts.box * math.nan) if calls == 4 else parts

    monkeypatch.setattr(module, "detection_loss", spoiled)
    with pytest.raises(YolomishError, match=r"epoch 2, step 4: box nan.*lr"):
        module.fit(tiny, tmp_path / "run", log=lambda _: None)
    from yolomish.training.checkpoint import read_checkpoint

    saved = read_checkpoint(tmp_path / "run" / "last.pt")
    assert saved["epoch"] == 1 and all(torch.isfinite(v).all() for v in saved["model"].values())


def test_run_folders_are_never_overwritten(tmp_path: Path) -> None:
    from yolomish.commands.train import free_folder

    (tmp_path / "run").mkdir()
    (tmp_path / "run-2").mkdir()
    assert free_folder(tmp_path, "run") == tmp_path / "run-3"
