"""Kernels of infinitely wide networks and of networks at hand, and prediction with them."""
