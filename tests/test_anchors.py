"""Anchors fit the boxes: k-means by IoU, refinement that never loses, masks by stride."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torchvision.ops import box_iou
from typer.testing import CliRunner

from yolomish.commands import app
from yolomish.data.anchors import (
    best_possible_recall,
    choose_anchors,
    kmeans_anchors,
    mean_best_iou,
    refine,
    shape_ious,
    share_out,
)
from yolomish.errors import YolomishError
from yolomish.networks import find_model
from yolomish.networks.registry import outline
from yolomish.tasks.detection.assign import within_ratio
from yolomish.types import HeadSpec


def test_planted_box_sizes_are_recovered() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[20, 30], [60, 40], [50, 120], [200, 180]])
    sizes = np.concatenate([c * rng.normal(1, 0.03, (80, 2)) for c in centres])
    np.testing.assert_allclose(kmeans_anchors(sizes, 4), centres, rtol=0.03)
    assert np.array_equal(kmeans_anchors(sizes, 4, seed=3), kmeans_anchors(sizes, 4, seed=3))


def test_iou_means_beat_euclids() -> None:
    cluster = pytest.importorskip("scipy.cluster.vq")
    sizes = np.exp(np.random.default_rng(1).normal(3.5, 0.8, (600, 2)))
    euclid, _ = cluster.kmeans2(sizes, 9, seed=0, minit="++")
    assert mean_best_iou(sizes, kmeans_anchors(sizes, 9)) > mean_best_iou(sizes, euclid) + 0.01


def test_shape_ious_equal_torchvisions_and_few_sizes_are_refused() -> None:
    sizes, anchors = np.random.default_rng(2).uniform(1, 50, (2, 7, 2))
    boxes = [torch.from_numpy(np.concatenate((-s / 2, s / 2), 1)) for s in (sizes, anchors)]
    np.testing.assert_allclose(shape_ious(sizes, anchors), box_iou(*boxes).numpy(), rtol=1e-9)
    with pytest.raises(YolomishError, match="3 different"):
        kmeans_anchors(np.array([[1.0, 2], [3, 4], [5, 6], [1, 2]]), 4)


def test_anchors_prints_yaml_and_both_ious() -> None:
    result = CliRunner().invoke(app, ["data", "anchors", "shapes", "-n", "9", "--imgsz", "192"], catch_exceptions=False)
    values = yaml.safe_load(result.output)["anchors"]
    assert len(values) == 9 and values == sorted(values, key=lambda a: a[0] * a[1])
    rows = [line for line in result.output.splitlines() if "mean IoU" in line]
    ious, recalls = ([float(line.split(word)[-1].split()[0]) for line in rows] for word in ("the best", "recall"))
    assert len(rows) == 3 and ious[0] < ious[1] < ious[2] and all(recall > 0.99 for recall in recalls)


SIZES = np.exp(np.random.default_rng(4).normal(3.2, 0.9, (800, 2)))


def heads_of(*masks: tuple[int, ...], strides: tuple[int, ...]) -> list[HeadSpec]:
    anchors = tuple((10.0 * i, 12.0 * i) for i in range(1, 1 + max(max(mask) for mask in masks) + 1))
    return [HeadSpec(all_anchors=anchors, mask=m, stride=s, num_classes=2) for m, s in zip(masks, strides, strict=True)]


def test_refinement_raises_the_iou_and_loses_no_recall() -> None:
    first = kmeans_anchors(SIZES, 5)
    better = refine(SIZES, first, 300, seed=1)
    assert mean_best_iou(SIZES, better) > mean_best_iou(SIZES, first) + 0.0005
    assert best_possible_recall(SIZES, better) >= best_possible_recall(SIZES, first)
    np.testing.assert_array_equal(better, refine(SIZES, first, 300, seed=1))
    assert not np.array_equal(better, refine(SIZES, first, 300, seed=2)) and np.array_equal(refine(SIZES, first, 0), first)
    chosen = choose_anchors(SIZES, heads_of((0, 1, 2), strides=(8,)), generations=200)
    assert chosen.refined.recall >= chosen.kmeans.recall - 0.01 and len(chosen.refined.anchors) == 3
    assert chosen.refined.mean_iou > chosen.own.mean_iou


def test_best_possible_recall_is_the_assignments() -> None:
    anchors = np.array([[5.0, 5], [40, 60]])
    reached = within_ratio(torch.from_numpy(SIZES), torch.from_numpy(anchors)).any(1)
    assert best_possible_recall(SIZES, anchors) == reached.double().mean().item()
    hand = np.array([[39.0, 39], [41, 30], [10, 2.4]])  # times 3.9 and 3; 4.1; 1 and 4.17 below
    assert best_possible_recall(hand, np.array([[10.0, 10]])) == 1 / 3


def test_the_finest_stride_gets_the_smallest_anchors() -> None:
    masks = lambda heads, n: {head.stride: mask for head, mask in share_out(heads, n)}  # noqa: E731
    coarse_first = heads_of((3, 4, 5), (0, 1, 2), strides=(32, 16))
    assert masks(coarse_first, 6) == {32: [3, 4, 5], 16: [0, 1, 2]}
    assert masks(coarse_first, 9) == {32: [5, 6, 7, 8], 16: [0, 1, 2, 3, 4]}
    assert masks(heads_of((0,), (1, 2, 3), strides=(8, 16)), 4) == {8: [0], 16: [1, 2, 3]}


def test_many_boxes_are_drawn_from_and_all_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yolomish.data.anchors.LEARNT_FROM", 300)
    heads = heads_of((0, 1, 2, 3), strides=(8,))
    chosen = choose_anchors(SIZES, heads, generations=5)
    assert chosen.refined.mean_iou == mean_best_iou(SIZES, chosen.refined.anchors)
    np.testing.assert_array_equal(chosen.refined.anchors, choose_anchors(SIZES, heads, generations=5).refined.anchors)


def test_heads_with_lists_of_their_own_are_measured_together(tmp_path: Path) -> None:
    """A cfg whose two [yolo] name other anchors, which no single list of the model can hold."""
    head = "[convolutional]\nsize=1\nstride=1\npad=1\nfilters=7\nactivation=linear\n"
    yolo = "[yolo]\nmask={}\nanchors={}\nclasses=2\nnum={}\n"
    lines = "[net]\nwidth=64\nheight=64\nchannels=3\n[convolutional]\nfilters=8\nsize=3\nstride=2\npad=1\nactivation=leaky\n"
    lines += head + yolo.format("0", "8,8", 1) + "[route]\nlayers=-3\n"
    lines += "[convolutional]\nfilters=8\nsize=3\nstride=2\npad=1\nactivation=leaky\n" + head + yolo.format("1", "8,8, 30,40", 2)
    (tmp_path / "own.cfg").write_text(lines)
    assert not find_model(str(tmp_path / "own.cfg")).anchors
    command = ["data", "anchors", "shapes", "--model", str(tmp_path / "own.cfg"), "--generations", "20"]
    output = CliRunner().invoke(app, command, catch_exceptions=False).output
    found = yaml.safe_load(output)["anchors"]
    heads = outline(find_model(str(tmp_path / "own.cfg"))).heads
    assert [h.stride for h in heads] == [2, 4] and len(found) == 2
    assert "own.cfg's own: 2 anchors" in output and "stride 2: mask = 0" in output and "stride 4: mask = 1" in output
    assert "# anchors = " + ",  ".join(f"{w},{h}" for w, h in found) in output
