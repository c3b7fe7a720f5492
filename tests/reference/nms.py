"""Non-maximum suppression as Darknet writes it: a loop over pairs."""

import torch


def darknet_nms(
    boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor, threshold: float, beta: float = 0.6
) -> list[int]:
    """Darknet's src/box.c diounms_sort, one pair at a time: indices kept, best score first; ``beta`` infinite is plain IoU."""
    order, kept = sorted(range(len(scores)), key=lambda i: -scores[i].item()), []
    for i in order:
        for j in (k for k in kept if groups[k] == groups[i]):
            a, b = boxes[i].tolist(), boxes[j].tolist()
            w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            inter = max(w, 0) * max(h, 0)
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
            c2 = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
            d2 = ((a[0] + a[2] - b[0] - b[2]) / 2) ** 2 + ((a[1] + a[3] - b[1] - b[3]) / 2) ** 2
            if inter / union - (d2 / c2) ** beta > threshold:
                break
        else:
            kept.append(i)
    return kept
