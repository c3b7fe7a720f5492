"""A written ``.cfg`` and ``.weights``, read back by OpenCV where it still has the reader, else by our own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import torch
from torch import Tensor

from yolomish.darknet.weights import read_weights
from yolomish.darknet.write import opencv_lacks
from yolomish.errors import YolomishError
from yolomish.inference.export.verify import Agreement, compare
from yolomish.networks import Network, build_network, find_model
from yolomish.ops.decode import decode

TOLERANCE = 2e-3  # in scores 0..1 and in fractions of the image, or of a box that is larger


@torch.no_grad()
def check_darknet(network: Network, cfg: Path, images: Tensor) -> Agreement:
    """How far the files at ``cfg`` are from ``network`` on ``images`` (1, 3, S, S); YolomishError where they differ."""
    weights = cfg.with_suffix(".weights")
    foreign = opencv_lacks(network)
    if foreign or not hasattr(cv2.dnn, "readNetFromDarknet"):  # OpenCV 5 has none
        other = build_network(find_model(str(cfg))).eval()
        read_weights(weights, other)
        agreement = compare(network, other, [images], "the darknet file")
        return dataclasses.replace(
            agreement, by=f"our own reader: {foreign or f'OpenCV {cv2.__version__} reads no Darknet files'}"
        )
    net = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
    net.enableWinograd(False)  # its rounding shows in a network without training
    net.setInput(images.numpy())
    outputs = {len(out): torch.from_numpy(out) for out in net.forward(net.getUnconnectedOutLayersNames())}
    height, width = images.shape[2:]
    size = torch.tensor((width, height, width, height))
    worst = 0.0
    for raw, head in zip(network(images), network.heads, strict=True):
        decoded = decode([raw], [head])
        cells, anchors = raw[0, 0].numel(), len(head.anchors)
        corners = decoded.boxes[0].view(anchors, cells, 4).transpose(0, 1).reshape(-1, 4) / size
        objectness = decoded.objectness[0].view(anchors, cells).T.reshape(-1)
        out = outputs[anchors * cells]
        theirs = torch.cat((out[:, :2] - out[:, 2:4] / 2, out[:, :2] + out[:, 2:4] / 2), 1)
        seen = objectness > 0.01  # boxes of nothing may be of any size
        worst = max(worst, (objectness - out[:, 4]).abs().max().item())
        if seen.any():
            side = (corners[:, 2:] - corners[:, :2]).amax(1, keepdim=True).clamp(min=1)
            worst = max(worst, ((corners - theirs) / side)[seen].abs().max().item())
    if not worst <= TOLERANCE:
        raise YolomishError(f"OpenCV reads the darknet file and differs by {worst:.1e} in scores or boxes: nothing was written")
    return Agreement(logits=None, scores=worst, shapes=(tuple(images.shape),), by=f"OpenCV {cv2.__version__}")
