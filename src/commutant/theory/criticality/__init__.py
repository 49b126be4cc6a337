"""Kernels and susceptibilities of random networks: their flow with depth, and where it is critical."""
