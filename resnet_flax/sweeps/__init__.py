"""Sweeps: plan the runs of an experiment, execute those that are missing, and collect their outcomes."""
