"""Object detection: evaluation protocols, targets, losses, from pixels to detections."""
