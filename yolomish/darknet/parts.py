"""Which sections of a cfg are backbone, neck and head: what ``--scope`` and ``--freeze`` take."""

from __future__ import annotations

from collections.abc import Sequence

from yolomish.darknet.cfg import Section
from yolomish.darknet.plan import Plan, strides_yx


def find_parts(layers: Sequence[Section], plan: Plan) -> dict[str, tuple[str, ...]]:
    """Which sections are backbone, neck and head; everything as ``all`` where that cannot be known, see ``backbone_end``."""
    weighted = [i for i, s in enumerate(layers) if s.kind in ("convolutional", "connected")]
    head: set[int] = set()
    end = None
    if any(s.kind == "yolo" for s in layers):
        end = backbone_end(layers, plan.sources, [shape[1] for shape in plan.shapes])
        users = [source for sources in plan.sources for source in sources]
        for i in (i for i, s in enumerate(layers) if s.kind == "yolo"):
            head |= {i, i - 1}
            if i > 1 and layers[i - 2].kind == "convolutional" and users.count(i - 2) == 1 and plan.sources[i - 1] == (i - 2,):
                head.add(i - 2)
    elif len(weighted) > 1:
        end, head = weighted[-1] - 1, set(range(weighted[-1], len(layers)))
    if end is None:
        return {"all": ("layers",)}
    names = {
        "backbone": range(end + 1),
        "neck": [i for i in range(end + 1, len(layers)) if i not in head],
        "head": sorted(head),
    }
    return {part: tuple(f"layers.{i}" for i in indices) for part, indices in names.items() if indices}


def backbone_end(layers: Sequence[Section], sources: Sequence[tuple[int, ...]], heights: Sequence[int]) -> int | None:
    """The last section of a detector's backbone, None where the sections do not tell.

    Residual and cross-stage stages end in a merge. The backbone ends with the last one before the first pyramid pooling,
    upsampling or head (where that merge is a concatenation or a scaling, with the convolution behind it), provided that its map
    is the smallest and that later sections take no other map of that size from before. So yolov4 ends with section 104, as
    csdarknet53's own file does, and yolov3 with 74. Plain chains such as yolov3-tiny have no merge.
    """
    first = next(
        i
        for i, s in enumerate(layers)
        if s.kind in ("yolo", "upsample") or (s.kind == "maxpool" and s.integer("size", 1) > 2 and strides_yx(s) == (1, 1))
    )
    for merge in range(first - 1, -1, -1):
        if len(sources[merge]) < 2:
            continue
        end = merge
        if layers[merge].kind != "shortcut":
            end = next((i for i in range(merge + 1, first) if layers[i].kind == "convolutional"), merge)
        later = {source for used in sources[end + 1 :] for source in used if 0 <= source < end}
        if heights[end] == min(h for h in heights[: end + 1] if h > 1) and all(heights[i] > heights[end] for i in later):
            return end
    return None
