"""Imports and exports weights: safetensors, PyTorch and Keras files, and the names that other libraries use."""
