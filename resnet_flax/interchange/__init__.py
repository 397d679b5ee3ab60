"""Weights in and out: safetensors, PyTorch's files and names."""
