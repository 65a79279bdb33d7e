"""What binary layers cost: the layer suite, exact instruction counts, and the fit of the cost model."""
