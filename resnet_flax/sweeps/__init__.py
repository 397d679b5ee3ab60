"""Sweeps: which runs an experiment needs, which of them are done, and what they ended as."""
