"""From a model and a data set to COCO results."""

from __future__ import annotations

import torch
from tqdm import tqdm

from yolomish.data.datasets import DetectionData
from yolomish.data.loader import eval_loader
from yolomish.data.transforms import LETTERBOX_GREY, undo_resize
from yolomish.networks import YOLOv4
from yolomish.ops.distributed import gather, rank, world_size
from yolomish.ops.nms import select
from yolomish.tasks.detection.views import Runner, decode_views
from yolomish.types import Interpolation, ResizeMode


@torch.no_grad()
def predict(
    model: YOLOv4 | Runner,
    data: DetectionData,
    *,
    image_size: int,
    resize: ResizeMode,
    conf: float,
    iou: float,
    nms: str,
    batch: int = 8,
    device: torch.device | str = "cpu",
    max_det: int = 300,
    rect: bool = False,
    rect_margin: float = 0.0,
    interpolation: Interpolation = "linear",
    grey: int = LETTERBOX_GREY,
    tta: str = "off",
    workers: int = 0,
    progress: bool = False,
) -> list[dict]:
    """COCO results of every image: image_id and category_id of the annotation file, bbox xywh in image px, score.

    The settings are a ``Protocol``'s, ``tta`` a name of ``tta.VIEWS``. A YOLOv4 is left on ``device`` in the mode it
    came in; an engine takes images from the CPU. Several processes share the images, and each gives all results.
    """
    was_training = isinstance(model, YOLOv4) and model.training
    if isinstance(model, YOLOv4):
        model.eval().to(device)
    results = []
    loader = eval_loader(
        data,
        size=image_size,
        mode=resize,
        batch=batch,
        rect=rect,
        rect_margin=rect_margin,
        interpolation=interpolation,
        grey=grey,
        workers=workers,
        rank=rank(),
        world_size=world_size(),
    )
    for group in tqdm(loader, desc="evaluate", disable=None if progress else True, leave=False):
        images = group.images.to(device) if isinstance(model, YOLOv4) else group.images
        candidates = decode_views(model, images.float() / 255, tta, conf)
        found = select(candidates, len(group.images), conf=conf, iou=iou, kind=nms, max_det=max_det)
        for network_detections, undo, image_id in zip(found, group.resizes, group.image_ids, strict=True):
            detections = undo_resize(network_detections, undo).to("cpu")
            for (x0, y0, x1, y1), score, label in zip(
                detections.boxes.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True
            ):
                results.append(
                    {
                        "image_id": image_id,
                        "category_id": data.category_ids[label],
                        "bbox": [x0, y0, x1 - x0, y1 - y0],
                        "score": score,
                    }
                )
    if isinstance(model, YOLOv4):
        model.train(was_training)
    return [result for part in gather(results) for result in part]
