"""What networks are built of: convolution blocks, stages, folding, synchronised norms."""
