"""Darknet's sections as slow loops over numpy arrays (C, H, W), ported from the C files named; they share no code with ours."""

import numpy as np


def maxpool(x: np.ndarray, size: int, stride_y: int, stride_x: int, padding: int) -> np.ndarray:
    """src/maxpool_layer.c make_maxpool_layer and forward_maxpool_layer."""
    c, h, w = x.shape
    out_h, out_w = (h + padding - size) // stride_y + 1, (w + padding - size) // stride_x + 1
    out = np.empty((c, out_h, out_w), np.float32)
    for k in range(c):
        for i in range(out_h):
            for j in range(out_w):
                best = -np.inf
                for n in range(size):
                    for m in range(size):
                        row, column = -(padding // 2) + i * stride_y + n, -(padding // 2) + j * stride_x + m
                        if 0 <= row < h and 0 <= column < w:
                            best = max(best, x[k, row, column])
                out[k, i, j] = best
    return out


def maxpool_depth(x: np.ndarray, out_c: int) -> np.ndarray:
    """src/maxpool_layer.c forward_maxpool_layer, maxpool_depth."""
    return np.stack([x[g::out_c].max(0) for g in range(out_c)])


def local_average(x: np.ndarray, size: int, stride: int, padding: int) -> np.ndarray:
    """src/maxpool_layer.c forward_local_avgpool_layer."""
    c, h, w = x.shape
    out_h, out_w = (h + padding - size) // stride + 1, (w + padding - size) // stride + 1
    out = np.empty((c, out_h, out_w), np.float32)
    for k in range(c):
        for i in range(out_h):
            for j in range(out_w):
                seen = [
                    x[k, row, column]
                    for row in range(-(padding // 2) + i * stride, -(padding // 2) + i * stride + size)
                    for column in range(-(padding // 2) + j * stride, -(padding // 2) + j * stride + size)
                    if 0 <= row < h and 0 <= column < w
                ]
                out[k, i, j] = sum(seen) / len(seen)
    return out


def reorg_cpu(x: np.ndarray, out_w: int, out_h: int, out_c: int, stride: int) -> np.ndarray:
    """src/blas.c reorg_cpu with forward = 0, on flat memory: the first ``out_c``·``out_h``·``out_w`` values."""
    in_c, flat = out_c // (stride * stride), x.ravel()
    out = np.empty(out_c * out_h * out_w, np.float32)
    for k in range(out_c):
        for j in range(out_h):
            for i in range(out_w):
                offset = k // in_c
                w2, h2 = i * stride + offset % stride, j * stride + offset // stride
                out[i + out_w * (j + out_h * k)] = flat[w2 + out_w * stride * (h2 + out_h * stride * (k % in_c))]
    return out


def reorg3d(x: np.ndarray, stride: int) -> np.ndarray:
    """src/reorg_layer.c forward_reorg_layer: reorg_cpu is given the size of the result."""
    c, h, w = x.shape
    shape = c * stride * stride, h // stride, w // stride
    return reorg_cpu(x, shape[2], shape[1], shape[0], stride).reshape(shape)


def reorg(x: np.ndarray, stride: int) -> np.ndarray:
    """src/reorg_old_layer.c forward_reorg_old_layer: reorg_cpu is given the size of the input."""
    c, h, w = x.shape
    return reorg_cpu(x, w, h, c, stride).reshape(c * stride * stride, h // stride, w // stride)


def upsample(x: np.ndarray, stride: int, scale: float) -> np.ndarray:
    """src/blas.c upsample_cpu; a negative stride runs it backward."""
    c, h, w = x.shape
    if stride < 0:
        out = np.zeros((c, h // -stride, w // -stride), np.float32)
        for j in range(h):
            for i in range(w):
                out[:, j // -stride, i // -stride] += scale * x[:, j, i]
        return out
    out = np.empty((c, h * stride, w * stride), np.float32)
    for j in range(h * stride):
        for i in range(w * stride):
            out[:, j, i] = scale * x[:, j // stride, i // stride]
    return out


def shortcut(maps: list[np.ndarray], weights: np.ndarray | None, normalisation: str) -> np.ndarray:
    """src/blas.c shortcut_multilayer_cpu for maps of one height and width; ``weights`` flat, nweights long."""
    first = maps[0]
    outputs = first.size
    step = outputs // (len(weights) // len(maps)) if weights is not None else 0
    layer_step = len(weights) // len(maps) if weights is not None else 0
    out = np.empty(outputs, np.float32)
    for i in range(outputs):
        here = [weights[i // step + n * layer_step] if weights is not None else 1.0 for n in range(len(maps))]
        if weights is not None and normalisation == "softmax":
            e = [np.exp(w - max(here)) for w in here]
            here = [v / (1e-4 + sum(e)) for v in e]
        elif weights is not None and normalisation == "relu":
            here = [max(w, 0) / (1e-4 + sum(max(v, 0) for v in here)) for w in here]
        out[i] = first.flat[i] * here[0] + sum(m.flat[i] * w for m, w in zip(maps[1:], here[1:], strict=True) if i < m.size)
    return out.reshape(first.shape)


def sampled_shortcut(x: np.ndarray, add: np.ndarray) -> np.ndarray:
    """src/blas.c shortcut_cpu where ``add`` is larger: every stride-th value of the channels that both have."""
    stride = add.shape[1] // x.shape[1]
    out = x.copy()
    for k in range(min(x.shape[0], add.shape[0])):
        for j in range(x.shape[1]):
            for i in range(x.shape[2]):
                out[k, j, i] += add[k, j * stride, i * stride]
    return out


def convolution(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride_y: int, stride_x: int, padding: int, dilation: int, groups: int
) -> np.ndarray:
    """src/convolutional_layer.c forward_convolutional_layer, with im2col_cpu_ext's pad·dilation zeros on each side."""
    _, h, w = x.shape
    n, per_group, size, _ = weight.shape
    out_h, out_w = (h + 2 * padding - size) // stride_y + 1, (w + 2 * padding - size) // stride_x + 1
    out = np.empty((n, out_h, out_w), np.float32)
    for f in range(n):
        first = f // (n // groups) * per_group
        for i in range(out_h):
            for j in range(out_w):
                total = bias[f]
                for k in range(per_group):
                    for a in range(size):
                        for b in range(size):
                            row = i * stride_y + a * dilation - padding * dilation
                            column = j * stride_x + b * dilation - padding * dilation
                            if 0 <= row < h and 0 <= column < w:
                                total += weight[f, k, a, b] * x[first + k, row, column]
                out[f, i, j] = total
    return out


def blur(x: np.ndarray, size: int, stride: int) -> np.ndarray:
    """src/convolutional_layer.c make_convolutional_layer, antialiasing: 3 px with one zero outside, or 2 px."""
    kernel = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16 if size == 3 else np.full((2, 2), 1 / 4)
    planes = [
        convolution(
            plane[None], kernel[None, None].astype(np.float32), np.zeros(1), stride, stride, size // 2 if size == 3 else 0, 1, 1
        )
        for plane in x
    ]
    return np.concatenate(planes)
