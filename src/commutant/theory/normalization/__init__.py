"""Self-normalizing networks: SELU and the map of its mean and variance."""
