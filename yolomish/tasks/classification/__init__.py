"""Classification: what a network of one label per image is trained for."""
