"""Analyses of a network: counts, costs of stages, gradients, layer responses, gates, class probabilities."""
