"""Training: data loading, loop, checkpoints."""
