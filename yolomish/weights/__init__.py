"""Where weights files lie, which are published, and how they get here. No torch."""
