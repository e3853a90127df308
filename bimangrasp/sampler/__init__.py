"""The sampler: Langevin proposals with annealing, for any energy, and their CUDA graph."""
