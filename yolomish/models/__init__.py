"""The network as Python modules that read like the paper."""

from yolomish.models.yolov4 import YOLOv4, build_model

__all__ = ["YOLOv4", "build_model"]
