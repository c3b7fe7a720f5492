"""Geometry after the raw maps: IoU family, decoding, non-maximum suppression. No learned parameters."""
