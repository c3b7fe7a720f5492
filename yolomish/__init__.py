"""A YOLOv4 with a pluggable activation: train it, evaluate it as MS-COCO does, compare activations honestly."""

__version__ = "0.1.0"
