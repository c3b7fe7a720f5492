"""The Mish paper's own analyses (arXiv:1908.08681), for any activation: landscapes, noise, depth."""
