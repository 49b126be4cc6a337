"""Networks at hand: initialization at criticality, diagnosis, rescaling, learning rates."""
