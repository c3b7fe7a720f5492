"""Assignment, loss, schedule, checkpoints and the training loop."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from conftest import four_pictures, noise_data
from reference import training as reference
from torch import nn

from yolomish.config import ModelConfig, TrainConfig, check_train, from_dict, load_model_config, load_recipe
from yolomish.darknet.order import file_order
from yolomish.errors import YolomishError
from yolomish.tasks.detection.assign import assign_ratio, assign_shape_iou
from yolomish.tasks.detection.darknet_loss import box_deltas, darknet_loss
from yolomish.tasks.detection.loss import _bce, detection_loss, scaled_loss
from yolomish.tasks.detection.task import DetectionTask
from yolomish.training.build import prepare
from yolomish.training.memory import largest_fitting
from yolomish.training.optim import build_average, build_optimizer, burn_in_steps, learning_rate, set_step
from yolomish.types import HeadSpec, LossConstants, Losses

pytestmark = pytest.mark.usefixtures("undrawn")

ANCHORS = ((8, 8), (16, 16), (24, 24), (200, 20), (20, 200), (48, 48), (100, 100), (300, 300), (400, 400))
HEADS = tuple(
    HeadSpec(all_anchors=ANCHORS, mask=mask, stride=stride, num_classes=2, scale_xy=scale)
    for mask, stride, scale in (((0, 1, 2), 8, 1.2), ((3, 4, 5), 16, 1.1), ((6, 7, 8), 32, 1.05))
)
GRIDS = ((8, 8), (4, 4), (2, 2))
CONFIG = TrainConfig(assignment="shape-iou", scale_gains=False)


def target(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)


def raw_maps(fill: float = 0.0, batch: int = 1) -> list[torch.Tensor]:
    return [torch.full((batch, 21, h, w), fill, requires_grad=True) for h, w in GRIDS]


def test_assignment_takes_best_and_every_anchor_above_the_threshold() -> None:
    found = assign_shape_iou(target((0, 1, 24, 8, 40, 24)), HEADS, GRIDS)  # 16x16 centred on (32, 16), a cell border
    # shape IoU: 8x8 0.25, 16x16 1, 24x24 0.44; 48x48 0.11
    assert found[0].anchors.tolist() == [0, 1, 2]
    assert found[0].columns.tolist() == [4, 4, 4] and found[0].rows.tolist() == [2, 2, 2]
    assert found[0].labels.tolist() == [1, 1, 1]
    assert len(found[1]) == len(found[2]) == 0


def test_assignment_clamps_a_centre_on_the_image_edge() -> None:
    found = assign_shape_iou(target((0, 0, 56, 56, 72, 72)), HEADS, GRIDS)
    assert set(found[0].columns.tolist()) == {7} and set(found[0].rows.tolist()) == {7}


def test_assignment_keeps_a_poorly_shaped_box_on_its_best_anchor_alone() -> None:
    found = assign_shape_iou(target((0, 0, 0, 30, 1, 34)), HEADS, GRIDS)
    assert [len(f) for f in found] == [1, 0, 0]


def test_assignment_keeps_both_objects_of_one_cell_and_none_of_none() -> None:
    found = assign_shape_iou(target((0, 0, 24, 8, 40, 24), (0, 1, 25, 8, 41, 24)), HEADS, GRIDS)
    assert len(found[0]) == 6 and sorted(found[0].labels.tolist()) == [0, 0, 0, 1, 1, 1]
    assert all(len(f) == 0 for f in assign_shape_iou(target(), HEADS, GRIDS))


def test_loss_without_targets_is_objectness_alone_and_backward_works() -> None:
    maps = raw_maps(batch=2)
    parts = detection_loss(maps, HEADS, target(), CONFIG)
    assert parts.parts["box"].item() == 0 and parts.parts["class"].item() == 0
    assert parts.parts["objectness"].item() == pytest.approx(2 * 5.4 * math.log(2), rel=1e-5)
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
    assert detection_loss(maps, HEADS, target((0, 1, 20, 12, 36, 28)), CONFIG).parts["box"].item() < 1e-5


def random_case(seed: int, form: str = "exp") -> tuple[list[torch.Tensor], tuple[HeadSpec, ...], torch.Tensor]:
    """Maps of two images, one of them empty at times, with objects on borders, at edges and sharing cells."""
    generator = torch.Generator().manual_seed(seed)
    heads = tuple(replace(h, box_form=form, scale_xy=2.0 if form == "squared" else h.scale_xy) for h in HEADS)
    maps = [torch.randn((2, 21, h, w), generator=generator).requires_grad_() for h, w in GRIDS]
    rows = [
        (seed % 2, 1, 24, 8, 40, 24),
        (1, 0, 56, 56, 64, 64),
        (1, 0, 10, 10, 30, 34),
        (1, 1, 12, 11, 29, 33),
        (1, 0, 12, 0, 52, 40),
    ]
    sides = torch.rand((4, 2), generator=generator) * 50 + 4
    corners = torch.rand((4, 2), generator=generator) * (64 - sides)
    drawn = torch.cat((torch.ones(4, 1), torch.tensor([[0.0], [1], [0], [1]]), corners, corners + sides), 1)
    return maps, heads, torch.cat((target(*rows), drawn))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("form", ["exp", "squared"])
def test_scaled_loss_equals_a_slow_one_with_torchvisions_ciou(seed: int, form: str) -> None:
    maps, heads, targets = random_case(seed, form)
    config = replace(CONFIG, assignment="ratio")
    parts = scaled_loss(maps, heads, targets, config)
    slow = reference.scaled_loss(maps, heads, targets.tolist(), (0.05, 1.0, 0.5))
    assert parts.values().tolist() == pytest.approx(slow, rel=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_ratio_assignment_equals_a_slow_loop(seed: int) -> None:
    _, heads, targets = random_case(seed)
    fast = assign_ratio(targets, heads, GRIDS)
    slow = reference.ratio_positives(targets.tolist(), heads, GRIDS)
    for found, wanted in zip(fast, slow, strict=True):
        rows = torch.stack((found.images, found.anchors, found.rows, found.columns), 1).tolist()
        assert sorted(map(tuple, rows)) == sorted(w[:4] for w in wanted)


def test_ratio_assignment_at_a_corner_stays_inside() -> None:
    found = assign_ratio(target((0, 1, 0, 0, 7, 7), (0, 1, 57, 57, 64, 64)), HEADS, GRIDS)[0]
    places = set(zip(found.rows.tolist(), found.columns.tolist(), strict=True))
    assert places == {(0, 0), (7, 7)}


CONSTANTS = {
    "yolov4": LossConstants(),
    "mse": LossConstants(box_loss="mse", box=1.0),
    "iou": LossConstants(box_loss="iou"),
    "giou": LossConstants(box_loss="giou", shape_kind="giou", objectness=0.4),
    "diou": LossConstants(box_loss="diou", shape_kind="diou", all=0.5),
    "kinds": LossConstants(shape_kind="ciou", label_smoothing=0.1),
    "max_delta": LossConstants(box=0.75, max_delta=0.05),
    "best alone": LossConstants(shape_iou=1.0, max_delta=math.inf),
    "smooth": LossConstants(objectness_smooth=True, ignore_iou=0.3, objectness=0.4),
    "focal": LossConstants(focal=True),
    "classes": LossConstants(class_weights=(1.0, 3.5), classes=0.5, label_smoothing=0.2),
    "truth": LossConstants(truth_iou=0.6, ignore_iou=0.4, shape_iou=0.1),
    "all at once": LossConstants(
        truth_iou=0.5, ignore_iou=0.3, objectness_smooth=True, class_weights=(2.0, 1.0), objectness=0.5, box_loss="giou", all=2.0
    ),
}


def check_darknet_gradient(maps: list[torch.Tensor], heads: tuple[HeadSpec, ...], targets: torch.Tensor) -> list[torch.Tensor]:
    darknet_loss(maps, heads, targets, replace(CONFIG, loss="darknet")).total.backward()
    deltas = reference.darknet_deltas(maps, heads, targets.tolist())
    for raw, head, delta in zip(maps, heads, deltas, strict=True):
        gradient = raw.grad.view(len(raw), len(head.mask), -1, *raw.shape[2:]).permute(0, 1, 3, 4, 2)
        torch.testing.assert_close(-gradient.double(), delta, rtol=2e-4, atol=2e-6)
    return deltas


@pytest.mark.parametrize("form", ["exp", "squared"])
@pytest.mark.parametrize("name", CONSTANTS)
@pytest.mark.parametrize("seed", range(2))
def test_darknet_gradient_equals_a_slow_port_of_its_formulas(seed: int, name: str, form: str) -> None:
    maps, heads, targets = random_case(seed, form)
    heads = tuple(replace(head, loss=CONSTANTS[name]) for head in heads)
    grown = math.log(2.4) if form == "exp" else math.log(math.sqrt(2.4) / (2 - math.sqrt(2.4)))
    with torch.no_grad():  # a prediction on an object beside its centre, and one at it
        maps[0].view(2, 3, 7, 8, 8)[1, 1, :, 2, 3] = torch.tensor([0, 0, grown, grown, 0, 0, 0])
        maps[0].view(2, 3, 7, 8, 8)[seed, 1, :, 2, 4] = torch.tensor([-1, -1, 0, 0, 1, 1, -1.0])
    deltas = check_darknet_gradient(maps, heads, targets)
    if name == "yolov4":
        assert sum(int((delta[..., 4] == 0).sum()) for delta in deltas) > 0  # some are ignored


def test_an_anchor_in_two_masks_answers_twice_and_one_in_none_never() -> None:
    anchors = ((8, 8), (16, 16), (40, 40), (30, 30), (60, 10))
    masks = ((0, 1), (1, 2, 4))  # number 1 in both, number 3 in none
    heads = tuple(
        HeadSpec(all_anchors=anchors, mask=mask, stride=stride, num_classes=2, loss=LossConstants(shape_iou=0.9))
        for mask, stride in zip(masks, (8, 16), strict=True)
    )
    shared, alone = target((0, 1, 20, 12, 36, 28)), target((0, 1, 20, 12, 50, 42))
    grids = ((8, 8), (4, 4))
    assert [found.anchors.tolist() for found in assign_shape_iou(shared, heads, grids)] == [[1], [0]]
    assert [len(found) for found in assign_shape_iou(alone, heads, grids)] == [0, 0]
    maps = [torch.randn(1, 14, 8, 8, requires_grad=True), torch.randn(1, 21, 4, 4, requires_grad=True)]
    deltas = check_darknet_gradient(maps, heads, torch.cat((shared, alone)))
    assert [int((delta[..., 5] != 0).sum()) for delta in deltas] == [1, 1]


def test_five_heads_of_strides_8_to_128_equal_the_slow_port() -> None:
    generator = torch.Generator().manual_seed(3)
    anchors = tuple((6 * 1.7**n, 5 * 1.6**n) for n in range(10))
    strides = (8, 16, 32, 64, 128)
    heads = tuple(
        HeadSpec(all_anchors=anchors, mask=(2 * n, 2 * n + 1), stride=stride, num_classes=2, scale_xy=2, box_form="squared")
        for n, stride in enumerate(strides)
    )
    maps = [torch.randn((1, 14, 128 // s, 128 // s), generator=generator).requires_grad_() for s in strides]
    anchored = [(0, i % 2, 66 - w / 2, 66 - h / 2, 66 + w / 2, 66 + h / 2) for i, (w, h) in enumerate(anchors[1::2])]
    targets = target(*anchored, (0, 0, 0, 0, 128, 128), (0, 1, 3, 4, 20, 19))
    deltas = check_darknet_gradient(maps, heads, targets)
    assert all(delta[..., :4].abs().max() > 0 for delta in deltas)


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
@pytest.mark.parametrize("seed", range(3))
def test_darknets_box_deltas_are_derivatives_of_torchvisions_losses_where_they_equal_them(kind: str, seed: int) -> None:
    # iou and giou: all four, with w and h twice the derivative; diou and ciou: dx and dy while the hull stays, as inside
    generator = torch.Generator().manual_seed(seed)
    truth = torch.tensor([[0.2, 0.25, 0.7, 0.8]], dtype=torch.float64)
    size = torch.rand((1, 2), generator=generator, dtype=torch.float64) * 0.1 + 0.2
    if kind in ("diou", "ciou"):
        size = truth[:, 2:] - truth[:, :2] - 0.2
    centre = torch.tensor([[0.45, 0.5]], dtype=torch.float64)
    centre += (torch.rand((1, 2), generator=generator, dtype=torch.float64) - 0.5) * (0.15 if kind in ("diou", "ciou") else 0.5)
    centre.requires_grad_()
    size.requires_grad_()
    boxes = torch.cat((centre - size / 2, centre + size / 2), 1)
    if kind == "iou":
        value = 1 - torchvision.ops.box_iou(boxes, truth).sum()
    else:
        losses = {
            "giou": torchvision.ops.generalized_box_iou_loss,
            "diou": torchvision.ops.distance_box_iou_loss,
            "ciou": torchvision.ops.complete_box_iou_loss,
        }
        value = losses[kind](boxes, truth, reduction="sum")
    value.backward()
    found = box_deltas(boxes.detach(), truth, kind)
    torch.testing.assert_close(found[:, :2], -centre.grad, rtol=1e-5, atol=1e-6)
    if kind in ("iou", "giou"):
        torch.testing.assert_close(found[:, 2:], -2 * size.grad, rtol=1e-5, atol=1e-6)


def test_darknet_loss_adds_up_over_images_and_is_averaged_over_the_batch() -> None:
    maps, heads, targets = random_case(1)
    config = replace(CONFIG, loss="darknet", batch=64)
    whole = darknet_loss(maps, heads, targets, config).total
    halves = []
    for i in (0, 1):
        own = targets[targets[:, 0] == i].clone()
        own[:, 0] = 0
        halves.append(darknet_loss([m[i : i + 1] for m in maps], heads, own, config))
    torch.testing.assert_close(whole, halves[0].total + halves[1].total)
    scales = [DetectionTask().loss_scale(c) for c in (config, replace(config, loss="scaled"))]
    assert scales == [1 / 64, 1]


def test_darknet_deltas_of_w_and_h_follow_autograd_where_only_the_overlap_counts() -> None:
    # concentric boxes of one shape: no distance, no aspect; Darknet does not halve, so twice the derivative by w and h
    size = torch.tensor([[0.2, 0.1]], dtype=torch.float64, requires_grad=True)
    centre = torch.full((1, 2), 0.5, dtype=torch.float64)
    boxes = torch.cat((centre - size / 2, centre + size / 2), 1)
    truth = torch.tensor([[0.35, 0.425, 0.65, 0.575]], dtype=torch.float64)
    torchvision.ops.complete_box_iou_loss(boxes, truth, reduction="sum").backward()
    torch.testing.assert_close(box_deltas(boxes.detach(), truth, "ciou")[:, 2:], -2 * size.grad, rtol=1e-5, atol=1e-6)
    assert box_deltas(boxes.detach(), truth, "ciou")[:, :2].abs().max() < 1e-9


def test_darknet_deltas_of_boxes_apart_pull_together() -> None:
    delta = box_deltas(torch.tensor([[0.1, 0.1, 0.2, 0.2]]), torch.tensor([[0.6, 0.5, 0.7, 0.6]]), "ciou")
    assert (delta[0, :2] > 0).all()


def test_label_smoothing_and_focal_change_what_they_say() -> None:
    maps, heads, targets = random_case(0)
    variants = ({}, {"label_smoothing": 0.1}, {"focal_gamma": 1.5})
    plain, smooth, focal = (scaled_loss(maps, heads, targets, replace(CONFIG, **changes)).parts for changes in variants)
    assert smooth["class"] != plain["class"] and smooth["objectness"] == plain["objectness"]
    assert focal["objectness"] < plain["objectness"] and focal["box"] == plain["box"]
    found = torchvision.ops.sigmoid_focal_loss(torch.tensor([1.0, -2.0]), torch.tensor([1.0, 0.0]), alpha=0.25, gamma=1.5)
    torch.testing.assert_close(_bce(torch.tensor([1.0, -2.0]), torch.tensor([1.0, 0.0]), 1.5), found)


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
    assert learning_rate(50, 1000, 100, config) == pytest.approx(1 / 16)
    assert learning_rate(100, 1000, 100, config) == 1.0
    assert learning_rate(550, 1000, 100, config) == pytest.approx(0.55)
    assert learning_rate(1000, 1000, 100, config) == pytest.approx(0.1)
    assert burn_in_steps(50, 5, config) == 10 and learning_rate(1, 1, 0, config) > 0
    assert burn_in_steps(5000, 50, replace(config, burn_in_epochs=3)) == 150


def test_darknet_recipe_has_darknets_schedule() -> None:
    config = load_recipe("darknet", ModelConfig())
    at = [learning_rate(step, 500_500, 1000, config) for step in (500, 1000, 399_000, 401_000, 449_000, 451_000)]
    assert at == pytest.approx([0.0013 / 16, 0.0013, 0.0013, 0.00013, 0.00013, 0.000013])


def test_scaled_recipe_warms_biases_and_momentum() -> None:
    config = load_recipe("scaled", ModelConfig())
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    optimizer = build_optimizer(model, config)
    set_step(optimizer, 50, 1000, 100, config)
    rates = {g["name"]: g["lr"] for g in optimizer.param_groups}
    assert rates["kernels"] == pytest.approx(0.005) and rates["biases"] == pytest.approx(0.055)
    assert optimizer.param_groups[0]["momentum"] == pytest.approx((0.8 + 0.937) / 2)
    set_step(optimizer, 100, 1000, 100, config)
    assert {g["lr"] for g in optimizer.param_groups} == {0.01} and optimizer.param_groups[0]["nesterov"]


@pytest.mark.parametrize("name", ["darknet", "scaled", "small"])
def test_recipes_are_valid_and_state_only_known_keys(name: str) -> None:
    check_train(load_recipe(name, load_model_config("yolov4-n")))


def test_only_kernels_decay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.PReLU(4))
    for optimizer in ("sgd", "adamw"):
        groups = {g["name"]: g for g in build_optimizer(model, replace(CONFIG, optimizer=optimizer)).param_groups}
        assert [p.shape for p in groups["kernels"]["params"]] == [model[0].weight.shape]
        assert groups["kernels"]["weight_decay"] > 0 == groups["biases"]["weight_decay"] == groups["rest"]["weight_decay"]
        assert len(groups["biases"]["params"]) == len(groups["rest"]["params"]) == 2


def test_ema_ramps_and_covers_buffers() -> None:
    model = nn.BatchNorm2d(1)
    average = build_average(model, 0.9)
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.running_mean.fill_(2.0)
        model.num_batches_tracked.fill_(5)
    average.update_parameters(model)
    decay = 0.9 * (1 - math.exp(-1 / 200))
    assert average.module.weight.item() == pytest.approx(3 - 2 * decay)
    assert average.module.running_mean.item() == pytest.approx(2 - 2 * decay)
    assert average.module.num_batches_tracked.item() == 5


def test_unknown_config_key_is_refused() -> None:
    with pytest.raises(YolomishError, match="peak_lr"):
        from_dict(TrainConfig, {"peek_lr": 0.1})


def test_files_that_are_no_checkpoint_are_named(tmp_path: Path) -> None:
    from yolomish.weights.checkpoint import read_checkpoint

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
    from yolomish.files import replace_file

    path = tmp_path / "x.pt"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(YolomishError, match=r"x\.pt cannot be written: disk full"):
        replace_file(path, fail)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.fixture
def tiny(tmp_path: Path) -> TrainConfig:
    data = noise_data(tmp_path / "data", train=4, val=2)
    model = ModelConfig(name="yolov4-n", width=0.125, depth=0.25)
    return TrainConfig(model=model, data=data, image_size=64, burn_in=2, epochs=2, batch=2, workers=0, device="cpu")


def assert_equal(a: object, b: object, where: str = "") -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            if key != "timings":
                assert_equal(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}/{i}")
    else:
        assert a == b, where


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_resume_gives_the_bits_of_an_uninterrupted_run(tiny: TrainConfig, tmp_path: Path, amp: str) -> None:
    from yolomish.training.loop import fit
    from yolomish.weights.checkpoint import read_checkpoint
    from yolomish.weights.load import load_network

    tiny = replace(tiny, amp=amp)
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
    assert whole.history == parts.history
    for name in ("last.pt", "best.pt"):
        assert_equal(read_checkpoint(tmp_path / "whole" / name), read_checkpoint(tmp_path / "parts" / name), name)
    assert (tmp_path / "whole" / "results.csv").read_bytes() == (tmp_path / "parts" / "results.csv").read_bytes()
    for name in ("timing.csv", "config.yaml", "curves.png", "train_batch0.jpg"):
        assert (tmp_path / "whole" / name).is_file()
    network = load_network(str(whole.best))
    assert network.names == ("a", "b") and network.network.input.size_hw == (64, 64) and not network.network.training
    assert load_network(str(whole.last)).images_seen == 8  # two epochs of four images
    with pytest.raises(YolomishError, match="already holds a run"):
        fit(tiny, tmp_path / "whole", log=lambda _: None)


def test_non_finite_loss_stops_and_leaves_last(tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from yolomish.training.loop import fit

    calls = 0

    def spoiled(*args, **kwargs):
        nonlocal calls
        calls += 1
        losses = detection_loss(*args, **kwargs)
        return Losses(parts={**losses.parts, "box": losses.parts["box"] * math.nan}) if calls == 4 else losses

    monkeypatch.setattr("yolomish.tasks.detection.task.detection_loss", spoiled)
    with pytest.raises(YolomishError, match=r"epoch 2, step 4: box nan.*lr"):
        fit(tiny, tmp_path / "run", log=lambda _: None)
    from yolomish.weights.checkpoint import read_checkpoint

    saved = read_checkpoint(tmp_path / "run" / "last.pt")
    assert saved["progress"]["epoch"] == 1 and all(torch.isfinite(v).all() for v in saved["model"].values())


def test_run_folders_are_never_overwritten(tmp_path: Path) -> None:
    from yolomish.files import free_folder

    (tmp_path / "run").mkdir()
    (tmp_path / "run-2").mkdir()
    assert free_folder(tmp_path / "run") == tmp_path / "run-3"


def test_tensorboard_holds_what_the_csv_files_hold(tiny: TrainConfig, tmp_path: Path) -> None:
    from yolomish.training.loop import fit

    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    result = fit(replace(tiny, epochs=1), tmp_path / "run", log=lambda _: None)
    events = accumulator.EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    for key, value in result.history[0].items():
        if key != "epoch":
            assert [(e.step, e.value) for e in events.Scalars(key)] == [(1, pytest.approx(value, rel=1e-6))]
    assert {"step_ms", "images_per_s"} <= set(events.Tags()["scalars"])


def test_mini_batch_by_memory_is_the_largest_divisor_that_fits() -> None:
    tried: list[int] = []

    def measure(images: int) -> int | None:
        tried.append(images)
        return 100 + 50 * images if images < 20 else None

    assert largest_fitting(64, 1, 1000, measure) == 16 and tried == [1, 2, 4, 8, 16, 32]
    assert largest_fitting(64, 1, 800, measure) == 8  # 16 need 900, over 90 % of 800
    assert largest_fitting(48, 2, 1000, measure) == 24  # 12 in each of two processes
    with pytest.raises(YolomishError, match="not even 1 image"):
        largest_fitting(64, 1, 100, measure)


def test_initial_weights_are_what_the_file_holds_and_no_more(tmp_path: Path) -> None:
    from yolomish.darknet.weights import write_weights
    from yolomish.networks import build_network
    from yolomish.weights.load import start_from

    small = ModelConfig(width=0.125, depth=0.1, num_classes=80)
    source = build_network(small)
    config = replace(CONFIG, model=replace(small, num_classes=3))
    backbone = sum(stored.name.startswith("backbone") for stored in file_order(source))
    for convolutions, left in ((backbone, {"neck", "head_layers"}), (None, {"head_layers"})):
        file = tmp_path / f"{convolutions}.weights"
        write_weights(file, source, convolutions=convolutions)
        model, said = build_network(config.model), []
        before = {k: v.clone() for k, v in model.state_dict().items()}
        start_from(model, file, said.append)
        after = model.state_dict()
        kept = {k for k in before if torch.equal(before[k], after[k]) and not torch.equal(after[k], source.state_dict()[k])}
        assert {k.split(".")[0] for k in kept} == left
        assert all(torch.equal(after[k], source.state_dict()[k]) for k in after if k.startswith("backbone"))
        counted = sum(not k.endswith("num_batches_tracked") for k in before)
        assert f"of {counted} tensors loaded; left as initialised: {'neck' if convolutions else 'head'}" in said[-1]


@pytest.mark.parametrize("window", [3, 10])
def test_losses_looked_at_in_windows_are_those_looked_at_singly(
    tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    from yolomish.training.loop import fit

    config = replace(tiny, batch=1, epochs=1, burn_in=0)  # four steps
    single = fit(config, tmp_path / "single", log=lambda _: None)
    monkeypatch.setattr("yolomish.training.loop.steps_between_looks", lambda device: window)
    assert fit(config, tmp_path / "window", log=lambda _: None).history == single.history
    calls = 0

    def spoiled(*args, **kwargs):
        nonlocal calls
        calls += 1
        losses = detection_loss(*args, **kwargs)
        return Losses(parts={k: v * math.nan for k, v in losses.parts.items()}) if calls == 2 else losses

    monkeypatch.setattr("yolomish.tasks.detection.task.detection_loss", spoiled)
    with pytest.raises(YolomishError, match="epoch 1, step 2: box nan"):
        fit(config, tmp_path / "spoiled", log=lambda _: None)


@pytest.mark.parametrize(
    ("activation", "settings"),
    [
        ("mish", {}),
        ("mish", {"memory": "lean"}),
        ("mish", {"kernels": "fused"}),
        pytest.param("mish", {"compile": True}, marks=pytest.mark.slow),
        ("leaky_relu", {}),
    ],
)
def test_a_bf16_step_on_a_cpu_is_as_near_to_fp32_as_torchs_own_layers(
    tiny: TrainConfig, activation: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from yolomish.training.build import prepare

    # The same graphs, run by torch: their C++ takes minutes to build
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    model = replace(load_model_config("yolov4-tiny"), width=0.25, activation=activation)
    tiny = replace(tiny, model=model, batch=4, image_size=96)

    def first_step(**settings: Any) -> tuple[torch.dtype | None, float, torch.Tensor]:
        run = prepare(replace(tiny, **settings), lambda _: None)
        run.train_mode()
        batch = next(iter(run.task.loader(run.train, run.config, run.network, epoch=0)))
        seen: list[torch.dtype] = []
        conv = next(m for m in run.network.modules() if isinstance(m, torch.nn.Conv2d))
        if not run.config.compile:  # a graph runs no hooks
            conv.register_forward_hook(lambda *args: seen.append(args[-1].dtype))
        losses = run.losses(run.images(batch), batch.targets)
        losses.total.backward()
        assert losses.total.dtype == torch.float32 and all(p.grad.dtype == torch.float32 for p in run.network.parameters())
        return seen[0] if seen else None, losses.total.item(), torch.cat([p.grad.flatten() for p in run.network.parameters()])

    kind, loss, truth = first_step()
    half, near, ours = first_step(amp="bf16", **settings)
    _, _, theirs = first_step(amp="bf16", kernels="eager")
    assert (kind, half) == (torch.float32, None if settings.get("compile") else torch.bfloat16)
    assert near == pytest.approx(loss, rel=0.01) and near != loss
    assert (ours - truth).norm() < 2 * (theirs - truth).norm()


def test_a_precision_that_this_cpu_has_not_or_runs_slowly_is_said_once(
    tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from yolomish.training.build import prepare

    def said(amp: str) -> list[str]:
        lines: list[str] = []
        run = prepare(replace(tiny, amp=amp), lines.append)
        assert run.config.amp == amp and not run.scaler.is_enabled()
        return [line for line in lines if "amp" in line or line.startswith("kernels")]

    assert ["float32" in line for line in said("off")] == [True]
    assert said("fp16")[0] == "amp fp16 is for cuda: training on cpu in float32"
    monkeypatch.setattr("torch.ops.mkldnn._is_mkldnn_bf16_supported", lambda: True, raising=False)
    assert ["bfloat16" in line for line in said("bf16")] == [True]
    monkeypatch.setattr("torch.ops.mkldnn._is_mkldnn_bf16_supported", lambda: False, raising=False)
    slow, kernels = said("bf16")
    assert slow == "this CPU has no bf16 instructions: amp bf16 computes as asked, but slower than amp off"
    assert "bfloat16" in kernels


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_trains_and_resumes_with_its_scaler(tiny: TrainConfig, tmp_path: Path, amp: str) -> None:
    from yolomish.training.loop import fit
    from yolomish.weights.checkpoint import read_checkpoint

    config = replace(tiny, device="cuda", amp=amp)
    result = fit(replace(config, epochs=1), tmp_path / "run", log=lambda _: None)
    saved = read_checkpoint(result.last)
    assert all(torch.isfinite(v).all() for v in saved["model"].values()) and bool(saved["scaler"]) == (amp == "fp16")
    again = fit(config, tmp_path / "run", resume=True, log=lambda _: None)
    assert len(again.history) == 2 and all(math.isfinite(v) for k, v in again.history[1].items() if k.startswith("train/"))


def test_initial_weights_are_recorded_and_a_changed_file_is_refused(tiny: TrainConfig, tmp_path: Path) -> None:
    from yolomish.config import load_yaml
    from yolomish.files import digest
    from yolomish.training.loop import fit

    first = fit(replace(tiny, epochs=1), tmp_path / "first", log=lambda _: None)
    second = replace(tiny, epochs=1, seed=1, initial_weights=str(first.last))
    fit(second, tmp_path / "second", log=lambda _: None)
    recorded = load_yaml(tmp_path / "second" / "config.yaml")
    assert recorded["initial_weights"] == str(first.last)
    assert recorded["initial_weights_sha256"] == digest(first.last).sha256
    first.last.unlink()  # a resumed run reads its checkpoint alone
    fit(from_dict(TrainConfig, recorded | {"epochs": 2}), tmp_path / "second", resume=True, log=lambda _: None)
    first.best.rename(first.last)
    changed = replace(second, initial_weights_sha256=recorded["initial_weights_sha256"][::-1])
    with pytest.raises(YolomishError, match="has changed since this run was planned"):
        fit(changed, tmp_path / "third", log=lambda _: None)


def test_a_model_files_activation_is_trained_unless_an_option_says_otherwise(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from yolomish.commands import app

    model = tmp_path / "mine.yaml"
    model.write_text("name: mine\nwidth: 0.125\ndepth: 0.1\nactivation: relu\nneck_activation: silu\n")
    noise_data(tmp_path / "data", train=4, val=2)
    (tmp_path / "data.yaml").write_text("format: yolo\nroot: data\ntrain: images/train\nval: images/val\nnames: [a, b]\n")
    command = ["train", "--model", str(model), "--data", str(tmp_path / "data.yaml"), "--imgsz", "64x96", "--batch", "2"]
    for options, said in (([], "relu backbone, silu neck"), (["--act", "mish"], "mish backbone, silu neck")):
        done = CliRunner().invoke(app, [*command, "--dry-run", *options])
        assert done.exit_code == 0 and said in done.output, done.output
        assert "64x96 px" in done.output


def test_only_the_processes_of_a_trial_go_without_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from yolomish.ops import distributed

    monkeypatch.setattr(distributed.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed.dist, "get_world_size", lambda: 4)
    monkeypatch.setattr(distributed.dist, "all_reduce", lambda value: pytest.fail("waits for the others"))
    assert distributed.world_size() == 4
    with distributed.alone():
        assert distributed.world_size() == 1 and distributed.sum_over_ranks(torch.ones(())) == 1
    assert distributed.world_size() == 4


@pytest.mark.parametrize("recipe", ["small", "scaled", "darknet"])
def test_a_network_learns_four_pictures_by_heart(recipe: str, tmp_path: Path) -> None:
    base = load_recipe(recipe, replace(load_model_config("yolov4-tiny"), width=0.25))
    still = {
        "mosaic": 0.0,
        "jitter": 0.0,
        "hue": 0.0,
        "saturation": 1.0,
        "exposure": 1.0,
        "flip": 0.0,
        "scale": 0.0,
        "translate": 0.0,
        "multi_scale": 0.0,
    }
    gains = {} if recipe == "darknet" else {"class_gain": 1.0, "scale_gains": False}
    rates = {"optimizer": "adamw", "momentum": 0.9, "weight_decay": 0.0, "peak_lr": 0.004, "schedule": "cosine"}
    warm = {"burn_in": 5, "burn_in_epochs": 0.0, "burn_in_bias_lr": 0.0, "burn_in_momentum": 0.0}
    steps = 140
    config = replace(
        base,
        data=four_pictures(tmp_path / "data"),
        model=replace(base.model, bn_momentum=0.3),
        image_size=64,
        epochs=steps,
        batch=4,
        mini_batch=0,
        ema=False,
        workers=0,
        device="cpu",
        seed=0,
        **(still | gains | rates | warm),
    )
    run = prepare(config, lambda _: None)
    batches = list(run.task.loader(run.train, run.config, run.network, epoch=0))
    run.train_mode()
    losses = [run.step(batches, number)[0].sum().item() for number in range(1, steps + 1)]
    metrics = run.evaluate()
    assert losses[-1] < losses[0] / 10 and metrics.values["AP50"] > 0.94 and metrics.score > 0.75, (losses[::20], metrics)
