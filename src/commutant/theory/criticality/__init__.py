"""Flow of kernels and susceptibilities of random networks with depth, and its critical points."""
