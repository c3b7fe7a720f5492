"""Slow, obvious versions of what the package does, written from the papers and Darknet's source."""
