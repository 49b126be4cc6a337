"""Self-normalizing networks: SELU and the map of means and variances from layer to layer."""
