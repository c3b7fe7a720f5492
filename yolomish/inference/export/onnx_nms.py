"""Decoding and ONNX's own NonMaxSuppression at the end of an ONNX graph: boxes come out, and no code of ours is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from yolomish.inference.export.onnx_graph import output_names
from yolomish.inference.export.packages import require
from yolomish.ops.decode import MAX_LOG_SIZE
from yolomish.types import HeadSpec

if TYPE_CHECKING:
    import onnx

OUTPUT = "detections"


class _Nodes:
    def __init__(self) -> None:
        self.onnx = require("onnx")
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def __call__(self, kind: str, *inputs: str | np.ndarray, outputs: int = 1, **attributes: Any) -> Any:
        """The name of a new node's output, or a list of ``outputs`` names; arrays become constants."""
        names = [i if isinstance(i, str) else self.constant(i) for i in inputs]
        made = [f"nms_{kind.lower()}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(kind, names, made, name=f"node_{made[0]}", **attributes))
        return made[0] if outputs == 1 else made

    def constant(self, value: np.ndarray) -> str:
        name = f"nms_constant_{len(self.initializers)}"
        self.initializers.append(self.onnx.numpy_helper.from_array(value, name))
        return name


def _float(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def _int(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def _decode(node: _Nodes, raw: str, head: HeadSpec) -> tuple[str, str]:
    """Boxes (B, A·H·W, 4) xyxy network px and scores (B, A·H·W, K), as ``ops.decode`` makes them."""
    a, k = len(head.anchors), head.num_classes
    shape = node("Shape", raw)
    columns = node("Gather", shape, _int(3), axis=0)
    count = node("Mul", columns, node("Gather", shape, _int(2), axis=0))
    index = node("Range", np.array(0, np.int64), node("Squeeze", count, _int(0)), np.array(1, np.int64))
    cells = node("Concat", *(node("Unsqueeze", node(op, index, columns), _int(1)) for op in ("Mod", "Div")), axis=1)
    logits = node("Transpose", node("Reshape", raw, _int(0, a, 5 + k, -1)), perm=[0, 1, 3, 2])  # (B, A, H·W, 5+K)
    xy, wh, objectness, classes = node("Split", logits, _int(2, 2, 1, k), outputs=4, axis=3)
    offset = node("Mul", node("Sigmoid", xy), _float(head.scale_xy))
    place = node("Sub", node("Add", node("Cast", cells, to=1), offset), _float((head.scale_xy - 1) / 2))
    centre = node("Mul", place, _float(head.stride))
    if head.box_form == "squared":
        twice = node("Mul", node("Sigmoid", wh), _float(2))
        size = node("Mul", twice, twice)
    else:
        size = node("Exp", node("Clip", wh, _float(-MAX_LOG_SIZE), _float(MAX_LOG_SIZE)))
    half = node("Mul", size, np.array(head.anchors, np.float32).reshape(1, a, 1, 2) / 2)
    boxes = node("Concat", node("Sub", centre, half), node("Add", centre, half), axis=3)
    scores = node("Mul", node("Sigmoid", objectness), node("Sigmoid", classes))
    return node("Reshape", boxes, _int(0, -1, 4)), node("Reshape", scores, _int(0, -1, k))


def add_nms(model: onnx.ModelProto, heads: Sequence[HeadSpec], *, conf: float, iou: float, max_det: int) -> None:
    """Turn the raw maps of ``model`` into one output ``detections`` (N, 7) float32, by plain IoU, class by class.

    A row is [index in the batch, x1, y1, x2, y2, score, label], boxes in network px, rows by image, then class, then
    score. At most ``max_det`` a class and image.
    """
    node = _Nodes()
    parts = [_decode(node, name, head) for name, head in zip(output_names(heads), heads, strict=True)]
    boxes = node("Concat", *(b for b, _ in parts), axis=1)
    scores = node("Transpose", node("Concat", *(s for _, s in parts), axis=1), perm=[0, 2, 1])  # (B, K, N)
    kept = node(
        "NonMaxSuppression", boxes, scores, _int(max_det), np.array([iou], np.float32), np.array([conf], np.float32)
    )  # (n, 3)
    image, label, _ = node("Split", kept, _int(1, 1, 1), outputs=3, axis=1)
    chosen = node("GatherND", boxes, node("Gather", kept, _int(0, 2), axis=1))
    score = node("Unsqueeze", node("GatherND", scores, kept), _int(1))
    rows = node("Concat", node("Cast", image, to=1), chosen, score, node("Cast", label, to=1), axis=1)
    node.nodes[-1].output[0] = OUTPUT
    assert rows
    model.graph.node.extend(node.nodes)
    model.graph.initializer.extend(node.initializers)
    del model.graph.output[:]
    kind = node.onnx.TensorProto.FLOAT
    model.graph.output.append(node.onnx.helper.make_tensor_value_info(OUTPUT, kind, ["detections", 7]))
