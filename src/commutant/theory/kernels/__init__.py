"""Kernels of infinitely wide networks and of finite ones, with the predictions that follow from them."""
