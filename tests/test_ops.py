"""Geometry against torchvision and slow loops."""

import dataclasses
import math

import pytest
import torch
from reference.builders import head_of
from reference.nms import darknet_nms
from torchvision import ops as tv

from yolomish.errors import YolomishError
from yolomish.ops.boxes import box_iou_matrix, ciou
from yolomish.ops.decode import Candidates, decode, decode_boxes
from yolomish.ops.nms import NMS_KINDS, Selection, postprocess, select, suppress


def random_boxes(n: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    corner = torch.rand(n, 2, dtype=dtype) * 100
    return torch.cat((corner, corner + 1 + torch.rand(n, 2, dtype=dtype) * 60), 1)


def test_iou_family_agrees_with_torchvision_in_value_and_gradient() -> None:
    a, b = random_boxes(200).requires_grad_(), random_boxes(200)
    torch.testing.assert_close(box_iou_matrix(a, b), tv.box_iou(a, b))
    mine, reference = 1 - ciou(a, b), tv.complete_box_iou_loss(a, b)
    torch.testing.assert_close(mine, reference, rtol=1e-6, atol=1e-6)
    (g1,), (g2,) = (torch.autograd.grad(x.sum(), a) for x in (mine, reference))
    torch.testing.assert_close(g1, g2, rtol=1e-5, atol=1e-6)


def test_decode_places_a_zero_logit_in_the_middle_of_its_cell() -> None:
    head = head_of(((10, 20), (30, 40), (50, 60)), stride=8, num_classes=2, scale_xy=1.2)
    decoded = decode([torch.zeros(1, 21, 3, 4)], [head])
    boxes = decoded.boxes.view(3, 3, 4, 4)
    torch.testing.assert_close(boxes[1, 2, 3], torch.tensor([28 - 15.0, 20 - 20.0, 28 + 15.0, 20 + 20.0]))
    assert (decoded.objectness == 0.5).all() and decoded.classes.shape == (1, 36, 2)


def test_scale_xy_lets_the_centre_reach_the_border() -> None:
    raw = torch.tensor([[-2.3979, 0.0, 0.0, 0.0]])
    head = head_of(((8, 8),), stride=8, num_classes=2, scale_xy=1.2)
    box = decode_boxes(raw, torch.tensor([[8.0, 8.0]]), torch.tensor([[2.0, 2.0]]), head)
    assert abs((box[0, 0] + box[0, 2]).item() / 2 - 16) < 1e-2  # sigma = 1/12: 1.2/12 - 0.1 = 0


def test_squared_boxes_reach_four_anchors_and_half_a_cell_beyond() -> None:
    head = head_of(((8, 8),), stride=8, num_classes=2, scale_xy=2.0, box_form="squared")
    box = decode_boxes(torch.tensor([[40.0, -40.0, 40.0, 0.0]]), torch.tensor([[8.0, 8.0]]), torch.tensor([[2.0, 2.0]]), head)
    torch.testing.assert_close(box, torch.tensor([[28 - 16.0, 12 - 4.0, 28 + 16.0, 12 + 4.0]]))


def clusters(n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Boxes that overlap in clusters, scores and three groups."""
    centre = torch.rand(12, 2).repeat(n // 12 + 1, 1)[:n] * 200 + torch.rand(n, 2) * 20
    half = 15 + torch.rand(n, 2) * 20
    return torch.cat((centre - half, centre + half), 1), torch.rand(n), torch.randint(3, (n,))


def kept_pairs(boxes: torch.Tensor, scores: torch.Tensor, selection: Selection) -> list[tuple[int, int]]:
    return [tuple(pair) for pair in suppress(boxes, scores, selection).nonzero().tolist()]


@pytest.mark.parametrize("kind, beta", [("greedy-diou", 0.6), ("diou", 0.9), ("iou", math.inf)])
@pytest.mark.parametrize("walk", [False, True], ids=["pairs", "heaps"])
def test_every_kind_equals_a_slow_loop_over_pairs(kind: str, beta: float, walk: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if walk:
        monkeypatch.setattr("yolomish.ops.nms.PAIRS_PER_BOX", 0)
    boxes, _, _ = clusters(400)
    scores = torch.rand(400, 3) * (torch.rand(400, 3) > 0.3)
    scores[100:200] = scores[:100]  # equal scores: the earlier box goes first
    rows, groups = scores.nonzero(as_tuple=True)
    for threshold in (0.0, 0.3, 0.6, 1.0):
        expected = darknet_nms(boxes[rows], scores[rows, groups], groups.tolist(), threshold, beta)
        ours = kept_pairs(boxes, scores, Selection(conf=0.0, iou=threshold, nms=kind, beta_nms=0.9, max_det=0))
        assert ours == sorted((rows[i].item(), groups[i].item()) for i in expected)
        assert 12 <= len(expected) and (threshold < 1 or len(expected) == len(rows))


def test_a_limit_leaves_the_best_of_all() -> None:
    torch.manual_seed(1)
    boxes, _, _ = clusters(3000)
    scores = torch.rand(3000, 20) ** 3
    everything = Selection(conf=0.001, iou=0.5, max_det=0)
    every = suppress(boxes, scores, everything)
    best = scores[every].sort(descending=True).values
    for most in (1, 7, 300, 2000):
        some = suppress(boxes, scores, dataclasses.replace(everything, max_det=most))
        assert torch.equal(scores[some].sort(descending=True).values[:most], best[:most])
        assert most == 2000 or some.sum() < every.sum()


def test_one_heap_of_a_whole_network_leaves_one_box_per_class() -> None:
    boxes = torch.tensor([0.0, 0.0, 9000.0, 9000.0]) + torch.rand(6000, 4)
    scores = 0.01 + torch.rand(6000, 80)
    kept = suppress(boxes, scores, Selection(conf=0.001, iou=0.6, max_det=0))
    assert torch.equal(kept.nonzero()[:, 1].sort().values, torch.arange(80))
    assert torch.equal(scores[kept].sort().values, scores.max(0).values.sort().values)


def test_iou_nms_equals_torchvision_and_differs_from_darknet() -> None:
    boxes, scores, groups = clusters(3000)
    each = torch.zeros(3000, 3).scatter(1, groups[:, None], scores[:, None])
    expected = tv.batched_nms(boxes.double(), scores.double(), groups, 0.5)
    iou, greedy = (suppress(boxes, each, Selection(conf=0.0, iou=0.5, nms=kind, max_det=0)) for kind in ("iou", "greedy-diou"))
    assert torch.equal(iou.any(1).nonzero()[:, 0], expected.sort().values)
    assert greedy.sum() > iou.sum()  # the distance is taken off the overlap


def test_the_frame_decides_where_a_distance_matters() -> None:
    side_by_side = torch.tensor([[0.0, 0.0, 100.0, 40.0], [18.0, 0.0, 118.0, 40.0]])
    found = Candidates(
        image=torch.tensor([0, 0]), boxes=side_by_side, objectness=torch.tensor([0.9, 0.8]), classes=torch.ones(2, 1)
    )
    for kind, frame, count in (
        ("greedy-diou", (1.0, 1.0), 2),
        ("greedy-diou", (1.0, 10.0), 1),
        ("greedy-diou", (0.001, 0.01), 1),
        ("iou", (1.0, 1.0), 1),
        ("iou", (1.0, 10.0), 1),
    ):
        selection = Selection(conf=0.1, iou=0.62, nms=kind)
        assert len(select(found, 1, selection, [frame])[0]) == count, (kind, frame)
    (alone,) = select(found, 1, Selection(conf=0.1, iou=0.62), [(1.0, 10.0)])
    assert torch.equal(alone.boxes, side_by_side[:1])  # they come back in network px


def test_a_crowded_map_gives_the_same_detections_as_all_its_candidates_through_the_slow_way() -> None:
    heads = [head_of(((12, 16), (30, 40)), stride=s, num_classes=40, scale_xy=1.1) for s in (8, 16)]
    maps = [torch.randn(2, 90, 128 // s, 160 // s) for s in (8, 16)]
    maps[0] = maps[0].to(memory_format=torch.channels_last)
    found = postprocess(maps, heads, Selection(conf=0.05, iou=0.5, nms="iou", max_det=200))
    decoded = decode(maps, heads)
    for i, ours in enumerate(found):
        scores = decoded.objectness[i, :, None] * decoded.classes[i]
        row, label = ((scores > 0.05) & (decoded.objectness[i, :, None] > 0.05)).nonzero(as_tuple=True)
        assert len(row) > 10_000
        kept = tv.batched_nms(decoded.boxes[i][row].double(), scores[row, label].double(), label, 0.5)[:200]
        torch.testing.assert_close(ours.scores, scores[row, label][kept])
        assert torch.equal(ours.labels, label[kept])
        torch.testing.assert_close(ours.boxes, decoded.boxes[i][row][kept])


def test_postprocess_of_an_empty_image_gives_no_detections() -> None:
    head = head_of(((10, 20),), stride=8, num_classes=2)
    raw = torch.full((2, 7, 4, 4), -20.0)
    raw[1, 4, 1, 2], raw[1, 6, 1, 2] = 9.0, 9.0
    for kind in NMS_KINDS:
        empty, one = postprocess([raw], [head], Selection(conf=0.1, iou=0.5, nms=kind))
        assert len(empty) == 0 and empty.boxes.shape == (0, 4)
        assert one.labels.tolist() == [1] and one.scores[0] > 0.99


def test_only_the_wanted_classes_take_part_before_the_limit() -> None:
    head = head_of(((10, 20),), stride=8, num_classes=3)
    raw = torch.full((1, 8, 4, 4), -20.0)
    raw[0, 4], raw[0, 5], raw[0, 7, 1, 2] = 9.0, 9.0, 8.0  # sixteen of class 0 outscore the one of class 2
    (found,) = postprocess([raw], [head], Selection(conf=0.1, iou=0.5, max_det=1, agnostic=True, classes=(2,)))
    assert found.labels.tolist() == [2]
    assert postprocess([raw], [head], Selection(conf=0.1, iou=0.5, max_det=1))[0].labels.tolist() == [0]


def test_agnostic_boxes_take_part_with_their_best_class() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 11], [50, 50, 60, 60]])
    classes = torch.tensor([[0.2, 0.9], [0.8, 0.1], [0.3, 0.4]])
    found = Candidates(image=torch.zeros(3, dtype=torch.int64), boxes=boxes, objectness=torch.ones(3), classes=classes)
    selection = Selection(conf=0.1, iou=0.5, agnostic=True)
    (ours,) = select(found, 1, selection)
    assert ours.labels.tolist() == [1, 1] and torch.equal(ours.boxes, boxes[[0, 2]])
    (apart,) = select(found, 1, dataclasses.replace(selection, agnostic=False))
    assert len(apart) == 4


def test_what_a_selection_cannot_be_is_said() -> None:
    for wrong, message in (
        ({"conf": 1.5}, "conf must be between 0 and 1, not 1.5"),
        ({"iou": -1}, "iou must be between"),
        ({"max_det": -1}, "0 for no limit, not -1"),
        ({"beta_nms": 0.0}, "beta_nms must be above 0"),
        ({"nms": "greedy-diuo"}, "did you mean 'greedy-diou'"),
    ):
        with pytest.raises(YolomishError, match=message):
            Selection(**{"conf": 0.1, "iou": 0.5} | wrong)
