"""Measurements of a network: counts, gradients, layer responses, gates."""
