"""Boxes and labels on pictures, and the colours of plots."""
