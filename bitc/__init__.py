"""bitc: the ahead-of-time compiler for binary neural networks."""
