"""Non-maximum suppression by IoU or by Darknet's DIoU tests, exact and without a loop over boxes.

Classes share their boxes, so the pairs that overlap are found once per image and serve every class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from yolomish.errors import YolomishError, unknown_name
from yolomish.ops.decode import Candidates, decode_above
from yolomish.types import Detections, HeadSpec

NMS_KINDS = ("greedy-diou", "iou", "diou")
GREEDY_BETA = 0.6  # Darknet src/box.c box_diou
BISECTIONS = 10
BLOCK = 128  # boxes that meet all others of like area at once: the matrix stays in a core's cache
PAIRS_PER_BOX = 64  # where more overlap, boxes lie in heaps, and each class is walked from its best box down
ENTRIES = 4_000_000  # pairs x classes that are settled at once
TINY = 1e-30  # keeps 0 / 0 at 0

Frame = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is kept of an image's candidates.

    Objectness and objectness x class must both be above ``conf``; a box goes when its overlap with a kept, higher one of its
    class exceeds ``iou``, both 0..1. The overlap is IoU (``nms`` iou, Darknet's nms_kind=default) or IoU - (d²/c²)^beta, with
    the distance d of the centres and the enclosing diagonal c: ``greedy-diou`` has beta 0.6 (greedynms), ``diou`` has
    ``beta_nms`` (diounms; Darknet src/box.c diounms_sort). ``max_det`` is the most per image, 0: no limit. ``agnostic`` lets
    classes suppress one another, each box in its best class alone. Only the labels in ``classes`` take part (empty: all).
    YolomishError on a value that cannot be.
    """

    KINDS: ClassVar[tuple[str, ...]] = NMS_KINDS

    conf: float
    iou: float
    nms: str = "greedy-diou"
    beta_nms: float = GREEDY_BETA
    max_det: int = 300
    agnostic: bool = False
    classes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for key in ("conf", "iou"):
            if not 0 <= getattr(self, key) <= 1:
                raise YolomishError(f"{key} must be between 0 and 1, not {getattr(self, key)}")
        if not self.beta_nms > 0:
            raise YolomishError(f"beta_nms must be above 0, not {self.beta_nms}")
        if self.max_det < 0:
            raise YolomishError(f"max_det must be at least 1, or 0 for no limit, not {self.max_det}")
        if self.nms not in self.KINDS:
            raise unknown_name("NMS kind", self.nms, self.KINDS)

    @property
    def beta(self) -> float | None:
        """The exponent of the distance; None for plain IoU."""
        return {"iou": None, "greedy-diou": GREEDY_BETA, "diou": self.beta_nms}[self.nms]


def postprocess(maps: Sequence[Tensor], heads: Sequence[HeadSpec], selection: Selection) -> list[Detections]:
    """Detections of each image in network px, best first, on the maps' device; they suppress one another in network px."""
    return select(decode_above(maps, heads, selection.conf), len(maps[0]), selection)


def select(candidates: Candidates, images: int, selection: Selection, frames: Sequence[Frame] = ()) -> list[Detections]:
    """The detections among ``candidates`` of so many ``images``, in network px, best first.

    ``frames`` are per image the factors of x and y that bring network px to the frame in which boxes suppress one another
    (empty: network px itself): d²/c² changes where the axes are scaled apart, IoU does not.
    """
    counts = torch.bincount(candidates.image, minlength=images).tolist()
    scores = candidates.objectness[:, None] * candidates.classes
    labels = torch.arange(scores.shape[1], device=scores.device)
    if selection.classes:
        labels = labels[list(selection.classes)]
        scores = scores[:, labels]
    parts = zip(candidates.boxes.split(counts), scores.split(counts), frames or [(1.0, 1.0)] * images, strict=True)
    return [_detections(boxes, image_scores, labels, selection, frame) for boxes, image_scores, frame in parts]


def _detections(boxes: Tensor, scores: Tensor, labels: Tensor, selection: Selection, frame: Frame) -> Detections:
    """One image's detections from boxes (M, 4) in network px and their scores (M, K) as ``labels`` (K,)."""
    labels = labels.expand(scores.shape)
    if selection.agnostic and len(scores):
        scores, best = scores.max(1, keepdim=True)
        labels = labels.gather(1, best)
    rows, columns = suppress(boxes.float() * boxes.new_tensor(frame * 2), scores, selection).nonzero(as_tuple=True)
    values = scores[rows, columns]
    order = torch.argsort(values, descending=True, stable=True)[: selection.max_det or None]
    rows, columns = rows[order], columns[order]
    return Detections(boxes=boxes[rows], scores=values[order], labels=labels[rows, columns])


def suppress(boxes: Tensor, scores: Tensor, selection: Selection) -> Tensor:
    """Which scores (M, K) of ``boxes`` (M, 4) greedy suppression keeps, column by column, as (M, K) bool.

    Those at most ``selection.conf`` are no candidates; of equal scores that of the earlier box goes first. Where the best
    scores alone leave ``max_det``, those below, which cannot change a thing, are left out.
    """
    kept = torch.zeros_like(scores, dtype=torch.bool)
    for level in _levels(scores, selection):
        wanted = scores > level
        rows = wanted.any(1).nonzero()[:, 0]
        chosen, chosen_scores = boxes[rows], scores[rows].where(wanted[rows], 0)
        pairs = overlapping_pairs(chosen, selection.iou, selection.beta, most=PAIRS_PER_BOX * len(rows))
        if pairs is None:
            columns = [_walk(chosen, column, selection) for column in chosen_scores.unbind(1)]
            kept[rows] = torch.stack(columns, 1)
        else:
            width = max(1, ENTRIES // (len(pairs[0]) + 1))
            kept[rows] = torch.cat([_settle(*pairs, part) for part in chosen_scores.split(width, 1)], 1)
        if selection.max_det and int(kept.count_nonzero()) >= selection.max_det:
            break
    return kept


def _levels(scores: Tensor, selection: Selection) -> tuple[float, ...]:
    """The thresholds to try: first one that leaves a few times ``max_det`` scores, bisected by counting, where there are
    many more."""
    first = 4 * selection.max_det + 2048
    if not selection.max_det or int((scores > selection.conf).count_nonzero()) <= 2 * first:
        return (selection.conf,)
    low, high = selection.conf, 1.0
    for _ in range(BISECTIONS):
        middle = (low * high) ** 0.5 if low > 0 else high / 8
        if int((scores > middle).count_nonzero()) > first:
            low = middle
        else:
            high = middle
    return low, selection.conf


def overlapping_pairs(boxes: Tensor, threshold: float, beta: float | None, *, most: int) -> tuple[Tensor, Tensor] | None:
    """The pairs first < second of ``boxes`` (N, 4) xyxy, as two (P,) tensors of indices, whose overlap exceeds ``threshold``;
    None where they are more than ``most``.

    The overlap is IoU - (d²/c²)^beta, with ``beta`` None the IoU. No IoU is above the quotient of the two areas: sorted by
    area, a box meets only those up to 1 / ``threshold`` times as large.
    """
    area, order = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sort()
    planes = boxes[order].T.contiguous()  # (4, N)
    reach = torch.full_like(order, len(order))
    if threshold > 0:
        reach = torch.searchsorted(area, area * (1.001 / threshold), right=True)
    ends = reach[BLOCK - 1 :: BLOCK].tolist()
    found: list[Tensor] = []
    for start in range(0, len(order), BLOCK):
        end = ends[start // BLOCK] if start + BLOCK <= len(order) else len(order)
        a, b = planes[:, start : start + BLOCK, None], planes[:, None, start:end]
        inter = _intersection(a, b)
        union = area[start : start + BLOCK, None] + area[start:end] - inter
        over = (inter > (0.999 * threshold) * union).triu(1)
        found.append(over.nonzero() + start)
        if sum(map(len, found)) > most:
            return None
    i, j = torch.cat(found).T if found else order.new_empty(2, 0)
    over = _overlap(planes[:, i], planes[:, j], beta) > threshold
    one, other = order[i[over]], order[j[over]]
    return torch.minimum(one, other), torch.maximum(one, other)


def _intersection(a: Tensor, b: Tensor) -> Tensor:
    """The areas that broadcast boxes have in common; x0, y0, x1, y1 come first, so that the inner axis is long."""
    width = torch.minimum(a[2], b[2]) - torch.maximum(a[0], b[0])
    height = torch.minimum(a[3], b[3]) - torch.maximum(a[1], b[1])
    return width.clamp_(min=0).mul_(height.clamp_(min=0))


def _overlap(a: Tensor, b: Tensor, beta: float | None) -> Tensor:
    """IoU - (d²/c²)^beta of broadcast boxes (4, ...) as in ``_intersection``; boxes without area overlap with none."""
    inter = _intersection(a, b)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    iou = inter / union.clamp(min=TINY)
    if beta is None:
        return iou
    corners = torch.maximum(a[2:], b[2:]) - torch.minimum(a[:2], b[:2])
    distance = ((a[:2] + a[2:] - b[:2] - b[2:]) / 2).square().sum(0)
    return iou - (distance / corners.square().sum(0).clamp(min=TINY)).pow(beta)


def _settle(first: Tensor, second: Tensor, scores: Tensor) -> Tensor:
    """Which of the scores (M, K), 0 for no candidate, are kept where ``first[p]`` and ``second[p]`` overlap too much.

    In rounds: whoever no undecided one beats is kept, and whom he beats goes. Of a random order, only a logarithm of M
    rounds is needed (arXiv:1707.05124).
    """
    count = scores.shape[1]
    kept = scores.flatten() > 0
    pair, column = ((scores[first] > 0) & (scores[second] > 0)).nonzero(as_tuple=True)
    winner, loser = first[pair] * count + column, second[pair] * count + column
    turned = scores.flatten()[loser] > scores.flatten()[winner]
    winner, loser = torch.where(turned, loser, winner), torch.where(turned, winner, loser)
    while len(winner):
        beaten = torch.zeros_like(kept)
        beaten[loser] = True
        gone = torch.zeros_like(kept)
        gone[loser[~beaten[winner]]] = True
        kept &= ~gone
        undecided = ~(gone[winner] | gone[loser])
        winner, loser = winner[undecided], loser[undecided]
    return kept.view(scores.shape)


def _walk(boxes: Tensor, scores: Tensor, selection: Selection) -> Tensor:
    """``_settle`` of one class's scores (M,) without all pairs: from the best down, a block at a time, of which every later
    box is dropped that a kept one overlaps too much."""
    kept = torch.zeros_like(scores, dtype=torch.bool)
    order = torch.argsort(scores, descending=True, stable=True)[: int(scores.count_nonzero())]
    while len(order):
        block, order = order[:BLOCK], order[BLOCK:]
        pairs = overlapping_pairs(boxes[block], selection.iou, selection.beta, most=BLOCK**2)
        assert pairs is not None
        new = block[_settle(*pairs, scores[block, None])[:, 0]]
        kept[new] = True
        over = _overlap(boxes[new].T[:, :, None], boxes[order].T[:, None], selection.beta) > selection.iou
        order = order[~over.any(0)]
    return kept
