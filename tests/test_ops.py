"""Geometry against torchvision and slow loops."""

import torch
from reference.builders import head_of
from reference.nms import darknet_nms
from torchvision import ops as tv

from yolomish.ops.boxes import box_iou_matrix, ciou
from yolomish.ops.decode import decode, decode_boxes
from yolomish.ops.nms import OVERLAPS, greedy_nms, postprocess


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


def test_darknet_nms_equals_a_slow_loop_over_pairs_across_chunks() -> None:
    boxes, scores, groups = clusters(700)
    for threshold in (0.3, 0.6):
        expected = darknet_nms(boxes, scores, groups, threshold)
        for most in (1, 40, 1000):
            kept = greedy_nms(boxes, scores, groups, threshold, OVERLAPS["greedy-diou"], most)
            assert kept.tolist() == expected[:most]
    assert len(expected) > 100


def test_iou_nms_equals_torchvision_and_differs_from_darknet() -> None:
    boxes, scores, groups = clusters(3000)
    expected = tv.batched_nms(boxes.double(), scores.double(), groups, 0.5)
    assert greedy_nms(boxes, scores, groups, 0.5, OVERLAPS["iou"], 10_000).tolist() == expected.tolist()
    assert greedy_nms(boxes, scores, groups, 0.5, OVERLAPS["greedy-diou"], 10_000).tolist() != expected.tolist()


def test_a_crowded_map_gives_the_same_detections_as_all_its_candidates_through_the_slow_way() -> None:
    heads = [head_of(((12, 16), (30, 40)), stride=s, num_classes=40, scale_xy=1.1) for s in (8, 16)]
    maps = [torch.randn(2, 90, 128 // s, 160 // s) for s in (8, 16)]
    maps[0] = maps[0].to(memory_format=torch.channels_last)
    found = postprocess(maps, heads, conf=0.05, iou=0.5, kind="iou", max_det=200)
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
    for kind in ("greedy-diou", "iou"):
        empty, one = postprocess([raw], [head], conf=0.1, iou=0.5, kind=kind)
        assert len(empty) == 0 and empty.boxes.shape == (0, 4)
        assert one.labels.tolist() == [1] and one.scores[0] > 0.99


def test_only_the_wanted_classes_take_part_before_the_limit() -> None:
    head = head_of(((10, 20),), stride=8, num_classes=3)
    raw = torch.full((1, 8, 4, 4), -20.0)
    raw[0, 4], raw[0, 5], raw[0, 7, 1, 2] = 9.0, 9.0, 8.0  # sixteen of class 0 outscore the one of class 2
    (found,) = postprocess([raw], [head], conf=0.1, iou=0.5, max_det=1, agnostic=True, classes=[2])
    assert found.labels.tolist() == [2]
    assert postprocess([raw], [head], conf=0.1, iou=0.5, max_det=1)[0].labels.tolist() == [0]
