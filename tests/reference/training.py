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


def darknet_box_delta(pred: list[float], truth: list[float], kind: str = "ciou") -> list[float]:
    """src/box.c dx_box_iou, boxes as centre x, y, w, h: the deltas of x, y, w, h."""
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
    cw, ch = max(pr, tr) - min(pl, tl), max(pb, tb) - min(pt, tt)
    apart = iw <= 0 or ih <= 0
    if kind == "giou":
        hull = {
            "t": -cw if pt < tt else 0.0,
            "b": cw if pb > tb else 0.0,
            "l": -ch if pl < tl else 0.0,
            "r": ch if pr > tr else 0.0,
        }
        for k, (dx, di) in moves.items():
            term = (cw * ch * (dx - di) - u * hull[k]) / (cw * ch) ** 2
            side[k] = term if apart else side[k] + term
    delta = [side["l"] + side["r"], side["t"] + side["b"], side["r"] - side["l"], side["b"] - side["t"]]
    if kind in ("iou", "giou"):
        return delta
    c, s = cw * cw + ch * ch, (px - tx) ** 2 + (py - ty) ** 2
    left, right, top, bottom = (float(v) for v in (pl < tl, pr > tr, pt < tt, pb > tb))
    extra = [
        (2 * (tx - px) * c - 2 * cw * (right - left) * s) / (c * c),
        (2 * (ty - py) * c - 2 * ch * (bottom - top) * s) / (c * c),
        2 * cw * (0.5 * right + 0.5 * left) * s / (c * c),
        2 * ch * (0.5 * bottom + 0.5 * top) * s / (c * c),
    ]
    if kind == "ciou":
        bend = math.atan(tw / th) - math.atan(pw / ph)
        ar_loss = 4 / math.pi**2 * bend**2
        alpha = ar_loss / (1 - i / u + ar_loss + 0.000001)
        extra[2] += alpha * 8 / math.pi**2 * bend * ph
        extra[3] -= alpha * 8 / math.pi**2 * bend * pw
    return extra if apart else [a + b for a, b in zip(delta, extra, strict=True)]


def iou(a: list[float], b: list[float]) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(w, 0) * max(h, 0)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def shape_overlap(a: tuple[float, float], b: tuple[float, float], kind: str) -> float:
    """src/box.c box_iou_kind of two sizes on one centre."""
    inter = min(a[0], b[0]) * min(a[1], b[1])
    union = a[0] * a[1] + b[0] * b[1] - inter
    value = inter / union
    if kind == "giou":
        hull = max(a[0], b[0]) * max(a[1], b[1])
        return value - (hull - union) / hull
    if kind == "ciou":
        unlike = 4 / math.pi**2 * (math.atan(b[0] / b[1]) - math.atan(a[0] / a[1])) ** 2
        return value - unlike / (1 - value + unlike + 0.000001) * unlike
    return value


def darknet_class_delta(delta: list[float], output: list[float], label: int, head: HeadSpec) -> None:
    """src/yolo_layer.c delta_yolo_class, in place."""
    c = head.loss
    smooth = c.label_smoothing
    true, false = 1 - smooth / 2, smooth / 2
    if delta[label]:
        delta[label] = true - output[label]
        if c.class_weights:
            delta[label] *= c.class_weights[label]
        return
    for k in range(head.num_classes):
        if c.focal:
            pt = output[label] + 1e-15
            grad = -(1 - pt) * (2 * pt * math.log(pt) + pt - 1)
            delta[k] = ((k == label) - output[k]) * 0.5 * grad
        else:
            delta[k] = (true if k == label else false) - output[k]
            if c.class_weights and k == label:
                delta[k] *= c.class_weights[label] * c.classes


def darknet_answer(
    cell: list[float],
    logits: list[float],
    place: tuple,
    target: list[float],
    head: HeadSpec,
    grid: tuple,
    objectness: float | None,
) -> None:
    """Box and class deltas of one object at one anchor, in place, and its objectness delta where that is given."""
    (a, row, column), (rows, columns), c = place, grid, head.loss
    squared = head.box_form == "squared"
    output = [sigmoid(v) for v in logits]
    weight = c.class_weights[int(target[1])] if c.class_weights else 1.0
    net = (columns * head.stride, rows * head.stride)
    pred, truth = (
        [(b[0] + b[2]) / 2 / net[0], (b[1] + b[3]) / 2 / net[1], (b[2] - b[0]) / net[0], (b[3] - b[1]) / net[1]]
        for b in (box_of(logits, head, a, row, column), target[2:])
    )
    if c.box_loss == "mse":
        ratios = [truth[2] * net[0] / head.anchors[a][0], truth[3] * net[1] / head.anchors[a][1]]
        wanted = [truth[0] * columns - column, truth[1] * rows - row]
        wanted += [math.sqrt(r / 4) if squared else math.log(r) for r in ratios]
        present = [head.scale_xy * o - (head.scale_xy - 1) / 2 for o in output[:2]]
        present += output[2:4] if squared else logits[2:4]
        for d in range(4):
            cell[d] += (2 - truth[2] * truth[3]) * (wanted[d] - present[d]) * c.box * weight
    else:
        step = darknet_box_delta(pred, truth, c.box_loss)
        if not squared:
            step[2] *= math.exp(logits[2])
            step[3] *= math.exp(logits[3])
        for d in range(4):
            cell[d] += min(max(step[d] * c.box * weight, -c.max_delta), c.max_delta)
    if objectness is not None:
        cell[4] = objectness
    elif not c.objectness_smooth or cell[4] == 0:
        cell[4] = weight * c.objectness * (1 - output[4])
    classes = cell[5:]
    darknet_class_delta(classes, output[5:], int(target[1]), head)
    if objectness is not None and c.objectness_smooth:
        classes[int(target[1])] = weight * (objectness / c.objectness + output[4] - output[5 + int(target[1])])
    cell[5:] = classes


def darknet_deltas(maps: list[Tensor], heads: tuple[HeadSpec, ...], targets: list[list[float]]) -> list[Tensor]:
    """src/yolo_layer.c process_batch, then what backward makes of it: the deltas of each head as (B, A, H, W, 5+K)."""
    result = []
    for raw, head in zip(maps, heads, strict=True):
        c, (rows, columns) = head.loss, raw.shape[2:]
        values = (
            raw.detach().double().view(len(raw), len(head.anchors), 5 + head.num_classes, rows, columns).permute(0, 1, 3, 4, 2)
        )
        delta = torch.zeros(values.shape, dtype=torch.float64)
        squared = head.box_form == "squared"
        for image in range(len(raw)):
            mine = [t for t in targets if int(t[0]) == image]

            for a in range(len(head.anchors)):
                for row in range(rows):
                    for column in range(columns):
                        logits = values[image, a, row, column].tolist()
                        box = box_of(logits, head, a, row, column)
                        output = [sigmoid(v) for v in logits]
                        cell = [0.0] * len(logits)
                        cell[4] = -c.objectness * output[4]
                        overlaps = [iou(box, t[2:]) for t in mine]
                        best = max(overlaps, default=0.0)
                        if best > c.ignore_iou and any(v > 0.25 for v in output[5:]):
                            cell[4] = max(cell[4], c.objectness * (best - output[4])) if c.objectness_smooth else 0.0
                        if best > c.truth_iou:
                            wanted = best * best if c.objectness_smooth else 1.0
                            nearest = mine[overlaps.index(best)]
                            darknet_answer(
                                cell,
                                logits,
                                (a, row, column),
                                nearest,
                                head,
                                (rows, columns),
                                c.objectness * (wanted - output[4]),
                            )
                        delta[image, a, row, column] = torch.tensor(cell, dtype=torch.float64)
            for target in mine:
                size = (target[4] - target[2], target[5] - target[3])
                shapes = [shape_overlap(size, anchor, "iou") for anchor in head.all_anchors]
                best_n = shapes.index(max(shapes))
                others = [n for n in range(len(shapes)) if n != best_n and c.shape_iou < 1]
                others = [n for n in others if shape_overlap(head.all_anchors[n], size, c.shape_kind) > c.shape_iou]
                for n in (best_n, *others):
                    if n in head.mask:
                        column = min(int((target[2] + target[4]) / 2 / head.stride), columns - 1)
                        row = min(int((target[3] + target[5]) / 2 / head.stride), rows - 1)
                        place = (head.mask.index(n), row, column)
                        cell = delta[(image, *place)].tolist()
                        darknet_answer(cell, values[(image, *place)].tolist(), place, target, head, (rows, columns), None)
                        delta[(image, *place)] = torch.tensor(cell, dtype=torch.float64)
        if c.shape_iou < 1:
            for cell in delta.view(-1, delta.shape[-1]):
                if cell[4] != 0 and (count := int((cell[5:] > 0).sum())):
                    cell[:4] /= count
        if squared:
            delta *= values.sigmoid() * (1 - values.sigmoid())
        result.append(delta * c.all)
    return result
