"""Run directories: everything that a run leaves behind; only the checkpoints need jax."""
