"""The network as Python modules that read like the paper."""

from yolomish.networks.yolov4 import YOLOv4, build_network

__all__ = ["YOLOv4", "build_network"]
