"""Reads and writes run directories. Only the modules for checkpoints import jax."""
