"""Assignment and losses object by object and number by number."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision.ops import complete_box_iou_loss

from yolomish.types import HeadSpec


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def ratio_positives(targets: list[list[float]], heads: tuple[HeadSpec, ...], grids: tuple) -> list[list[tuple]]:
    """(image, anchor, row, column, target) of every positive, head by head: Scaled-YOLOv4's rule."""
    found: list[list[tuple]] = []
    for head, (rows, columns) in zip(heads, grids, strict=True):
        positives = []
        for number, (image, _, x1, y1, x2, y2) in enumerate(targets):
            for anchor, (w, h) in enumerate(head.anchors):
                if max((x2 - x1) / w, w / (x2 - x1), (y2 - y1) / h, h / (y2 - y1)) >= 4:
                    continue
                x, y = (x1 + x2) / 2 / head.stride, (y1 + y2) / 2 / head.stride
                column, row = min(int(x), columns - 1), min(int(y), rows - 1)
                cells = [(row, column)]
                if x - column < 0.5 and column > 0:
                    cells.append((row, column - 1))
                if x - column > 0.5 and column < columns - 1:
                    cells.append((row, column + 1))
                if y - row < 0.5 and row > 0:
                    cells.append((row - 1, column))
                if y - row > 0.5 and row < rows - 1:
                    cells.append((row + 1, column))
                positives += [(int(image), anchor, r, c, number) for r, c in cells]
        found.append(positives)
    return found


def box_of(logits: list[float], head: HeadSpec, anchor: int, row: int, column: int) -> list[float]:
    x, y = (
        (cell + head.scale_xy * sigmoid(t) - (head.scale_xy - 1) / 2) * head.stride
        for cell, t in zip((column, row), logits[:2], strict=True)
    )
    forms = {"exp": math.exp, "squared": lambda t: (2 * sigmoid(t)) ** 2}
    w, h = (a * forms[head.box_form](t) for a, t in zip(head.anchors[anchor], logits[2:4], strict=True))
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def scaled_loss(
    maps: list[Tensor], heads: tuple[HeadSpec, ...], targets: list[list[float]], gains: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Box, objectness, classes of one batch: sums of means, balanced 4, 1, 0.4, times gains and images."""
    grids = tuple((m.shape[2], m.shape[3]) for m in maps)
    box = objectness = classes = 0.0
    for raw, head, positives, balance in zip(maps, heads, ratio_positives(targets, heads, grids), (4, 1, 0.4), strict=True):
        k = head.num_classes
        values = raw.detach().view(len(raw), len(head.anchors), 5 + k, *raw.shape[2:]).permute(0, 1, 3, 4, 2)
        wanted = torch.zeros(values.shape[:4])
        labels: dict[tuple, set[int]] = {}
        losses = []
        for image, anchor, row, column, number in positives:
            logits = values[image, anchor, row, column].tolist()
            box_pair = (torch.tensor([b]) for b in (box_of(logits, head, anchor, row, column), targets[number][2:]))
            loss = complete_box_iou_loss(*box_pair).item()
            losses.append(loss)
            place = (image, anchor, row, column)
            wanted[place] = max(wanted[place].item(), 1 - loss)
            labels.setdefault(place, set()).add(int(targets[number][1]))
        box += sum(losses) / max(len(losses), 1)
        entropy = [
            -(t * math.log(sigmoid(v)) + (1 - t) * math.log(1 - sigmoid(v)))
            for v, t in zip(values[..., 4].flatten().tolist(), wanted.flatten().tolist(), strict=True)
        ]
        objectness += balance * sum(entropy) / len(entropy)
        terms = [
            -math.log(sigmoid(v) if c in chosen else 1 - sigmoid(v))
            for place, chosen in labels.items()
            for c, v in enumerate(values[place][5:].tolist())
        ]
        classes += sum(terms) / max(len(terms), 1)
    images = len(maps[0])
    return box * gains[0] * images, objectness * gains[1] * images, classes * gains[2] * images


def darknet_box_delta(pred: list[float], truth: list[float]) -> list[float]:
    """src/box.c dx_box_iou for CIoU, boxes as centre x, y, w, h: the deltas of x, y, w, h."""
    (px, py, pw, ph), (tx, ty, tw, th) = pred, truth
    pl, pr, pt, pb = px - pw / 2, px + pw / 2, py - ph / 2, py + ph / 2
    tl, tr, tt, tb = tx - tw / 2, tx + tw / 2, ty - th / 2, ty + th / 2
    ih, iw = min(pb, tb) - max(pt, tt), min(pr, tr) - max(pl, tl)
    i = iw * ih
    u = pw * ph + tw * th - i
    moves = {
        "t": (-pw, -iw if pt > tt else 0.0),
        "b": (pw, iw if pb < tb else 0.0),
        "l": (-ph, -ih if pl > tl else 0.0),
        "r": (ph, ih if pr < tr else 0.0),
    }
    side = {k: (u * di - i * (dx - di)) / (u * u) if u > 0 else 0.0 for k, (dx, di) in moves.items()}
    delta = [side["l"] + side["r"], side["t"] + side["b"], side["r"] - side["l"], side["b"] - side["t"]]
    cw, ch = max(pr, tr) - min(pl, tl), max(pb, tb) - min(pt, tt)
    c, s = cw * cw + ch * ch, (px - tx) ** 2 + (py - ty) ** 2
    left, right, top, bottom = (float(v) for v in (pl < tl, pr > tr, pt < tt, pb > tb))
    bend = math.atan(tw / th) - math.atan(pw / ph)
    ar_loss = 4 / math.pi**2 * bend**2
    alpha = ar_loss / (1 - i / u + ar_loss + 0.000001)
    extra = [
        (2 * (tx - px) * c - 2 * cw * (right - left) * s) / (c * c),
        (2 * (ty - py) * c - 2 * ch * (bottom - top) * s) / (c * c),
        2 * cw * (0.5 * right + 0.5 * left) * s / (c * c) + alpha * 8 / math.pi**2 * bend * ph,
        2 * ch * (0.5 * bottom + 0.5 * top) * s / (c * c) - alpha * 8 / math.pi**2 * bend * pw,
    ]
    if iw <= 0 or ih <= 0:
        return extra
    return [a + b for a, b in zip(delta, extra, strict=True)]


def iou(a: list[float], b: list[float]) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(w, 0) * max(h, 0)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def darknet_deltas(maps: list[Tensor], heads: tuple[HeadSpec, ...], targets: list[list[float]]) -> list[Tensor]:
    """src/yolo_layer.c process_batch: the deltas of each head as (B, A, H, W, 5+K)."""
    anchors = [(head_number, a, size) for head_number, head in enumerate(heads) for a, size in enumerate(head.anchors)]
    result = []
    for head_number, (raw, head) in enumerate(zip(maps, heads, strict=True)):
        k, (rows, columns) = head.num_classes, raw.shape[2:]
        values = raw.detach().view(len(raw), len(head.anchors), 5 + k, rows, columns).permute(0, 1, 3, 4, 2)
        delta = torch.zeros_like(values)
        for image in range(len(raw)):
            mine = [t for t in targets if int(t[0]) == image]
            for a in range(len(head.anchors)):
                for row in range(rows):
                    for column in range(columns):
                        logits = values[image, a, row, column].tolist()
                        box = box_of(logits, head, a, row, column)
                        delta[image, a, row, column, 4] = -sigmoid(logits[4])
                        if any(iou(box, t[2:]) > 0.7 for t in mine) and any(sigmoid(v) > 0.25 for v in logits[5:]):
                            delta[image, a, row, column, 4] = 0
            touched = []
            for _, label, x1, y1, x2, y2 in mine:
                w, h = x2 - x1, y2 - y1

                def shape_iou(size: tuple, w: float = w, h: float = h) -> float:
                    inter = min(w, size[0]) * min(h, size[1])
                    return inter / (w * h + size[0] * size[1] - inter)

                best = max(range(len(anchors)), key=lambda n: shape_iou(anchors[n][2]))
                for n, (owner, a, size) in enumerate(anchors):
                    if owner != head_number or (n != best and shape_iou(size) <= 0.213):
                        continue
                    column = min(int((x1 + x2) / 2 / head.stride), columns - 1)
                    row = min(int((y1 + y2) / 2 / head.stride), rows - 1)
                    cell = delta[image, a, row, column]
                    logits = values[image, a, row, column].tolist()
                    box = box_of(logits, head, a, row, column)
                    net = (columns * head.stride, rows * head.stride)
                    pred, truth = (
                        [(b[0] + b[2]) / 2 / net[0], (b[1] + b[3]) / 2 / net[1], (b[2] - b[0]) / net[0], (b[3] - b[1]) / net[1]]
                        for b in (box, [x1, y1, x2, y2])
                    )
                    step = darknet_box_delta(pred, truth)
                    step[2] *= math.exp(logits[2])
                    step[3] *= math.exp(logits[3])
                    for d in range(4):
                        cell[d] += min(max(step[d] * 0.07, -5), 5)
                    cell[4] = 1 - sigmoid(logits[4])
                    if cell[5 + int(label)] != 0:
                        cell[5 + int(label)] = 1 - sigmoid(logits[5 + int(label)])
                    else:
                        for c in range(k):
                            cell[5 + c] = (c == int(label)) - sigmoid(logits[5 + c])
                    touched.append((a, row, column))
            for place in set(touched):
                cell = delta[(image, *place)]
                count = int((cell[5:] > 0).sum())
                if count:
                    cell[:4] /= count
        result.append(delta)
    return result
