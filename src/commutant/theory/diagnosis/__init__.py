"""Tools for a given network: initialization at criticality, diagnosis, rescaling, learning rates."""
