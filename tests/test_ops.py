"""Geometry against torchvision and slow loops."""

import torch
from torchvision import ops as tv

from yolomish.ops.boxes import box_iou_matrix, ciou, diou
from yolomish.ops.decode import decode, decode_boxes
from yolomish.ops.nms import greedy_diou_nms, postprocess
from yolomish.types import HeadSpec


def random_boxes(n: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    corner = torch.rand(n, 2, dtype=dtype) * 100
    return torch.cat((corner, corner + 1 + torch.rand(n, 2, dtype=dtype) * 60), 1)


def test_iou_family_agrees_with_torchvision_in_value_and_gradient() -> None:
    a, b = random_boxes(200).requires_grad_(), random_boxes(200)
    torch.testing.assert_close(box_iou_matrix(a, b), tv.box_iou(a, b))
    for ours, theirs in ((ciou, tv.complete_box_iou_loss), (diou, tv.distance_box_iou_loss)):
        mine, reference = 1 - ours(a, b), theirs(a, b)
        torch.testing.assert_close(mine, reference, rtol=1e-6, atol=1e-6)
        (g1,), (g2,) = (torch.autograd.grad(x.sum(), a) for x in (mine, reference))
        torch.testing.assert_close(g1, g2, rtol=1e-5, atol=1e-6)


def test_decode_places_a_zero_logit_in_the_middle_of_its_cell() -> None:
    head = HeadSpec(anchors=((10, 20), (30, 40), (50, 60)), stride=8, num_classes=2, scale_xy=1.2)
    decoded = decode([torch.zeros(1, 21, 3, 4)], [head])
    boxes = decoded.boxes.view(3, 3, 4, 4)
    torch.testing.assert_close(boxes[1, 2, 3], torch.tensor([28 - 15.0, 20 - 20.0, 28 + 15.0, 20 + 20.0]))
    assert (decoded.objectness == 0.5).all() and decoded.classes.shape == (1, 36, 2)


def test_scale_xy_lets_the_centre_reach_the_border() -> None:
    raw = torch.tensor([[-2.3979, 0.0, 0.0, 0.0]])
    head = HeadSpec(anchors=((8, 8),), stride=8, num_classes=2, scale_xy=1.2)
    box = decode_boxes(raw, torch.tensor([[8.0, 8.0]]), torch.tensor([[2.0, 2.0]]), head)
    assert abs((box[0, 0] + box[0, 2]).item() / 2 - 16) < 1e-2  # sigma = 1/12: 1.2/12 - 0.1 = 0


def test_squared_boxes_reach_four_anchors_and_half_a_cell_beyond() -> None:
    head = HeadSpec(anchors=((8, 8),), stride=8, num_classes=2, scale_xy=2.0, box_form="squared")
    box = decode_boxes(torch.tensor([[40.0, -40.0, 40.0, 0.0]]), torch.tensor([[8.0, 8.0]]), torch.tensor([[2.0, 2.0]]), head)
    torch.testing.assert_close(box, torch.tensor([[28 - 16.0, 12 - 4.0, 28 + 16.0, 12 + 4.0]]))


def slow_greedy(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> list[int]:
    """Darknet's diounms_sort, one pair at a time."""
    order, kept = sorted(range(len(scores)), key=lambda i: -scores[i].item()), []
    for i in order:
        for j in kept:
            a, b = boxes[i].tolist(), boxes[j].tolist()
            w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            inter = max(w, 0) * max(h, 0)
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
            c2 = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
            d2 = ((a[0] + a[2] - b[0] - b[2]) / 2) ** 2 + ((a[1] + a[3] - b[1] - b[3]) / 2) ** 2
            if inter / union - (d2 / c2) ** 0.6 > threshold:
                break
        else:
            kept.append(i)
    return kept


def test_greedy_diou_equals_a_slow_loop_and_differs_from_plain_iou() -> None:
    centre = torch.rand(120, 1).repeat(1, 2) * 20
    boxes = torch.cat((centre, centre + 40 + torch.rand(120, 2) * 20), 1)
    scores = torch.rand(120)
    for threshold in (0.3, 0.6):
        assert greedy_diou_nms(boxes, scores, threshold).tolist() == slow_greedy(boxes, scores, threshold)
    assert greedy_diou_nms(boxes, scores, 0.6).tolist() != tv.nms(boxes, scores, 0.6).tolist()


def test_postprocess_of_an_empty_image_gives_no_detections() -> None:
    head = HeadSpec(anchors=((10, 20),), stride=8, num_classes=2)
    raw = torch.full((2, 7, 4, 4), -20.0)
    raw[1, 4, 1, 2], raw[1, 6, 1, 2] = 9.0, 9.0
    for kind in ("greedy-diou", "iou"):
        empty, one = postprocess([raw], [head], conf=0.1, iou=0.5, kind=kind)
        assert len(empty) == 0 and empty.boxes.shape == (0, 4)
        assert one.labels.tolist() == [1] and one.scores[0] > 0.99


def test_only_the_wanted_classes_take_part_before_the_limit() -> None:
    head = HeadSpec(anchors=((10, 20),), stride=8, num_classes=3)
    raw = torch.full((1, 8, 4, 4), -20.0)
    raw[0, 4], raw[0, 5], raw[0, 7, 1, 2] = 9.0, 9.0, 8.0  # sixteen of class 0 outscore the one of class 2
    (found,) = postprocess([raw], [head], conf=0.1, iou=0.5, max_det=1, agnostic=True, classes=[2])
    assert found.labels.tolist() == [2]
    assert postprocess([raw], [head], conf=0.1, iou=0.5, max_det=1)[0].labels.tolist() == [0]
