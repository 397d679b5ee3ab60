"""Random weights that are determined by the tensor's name, so that every library gets the same ones."""

import zlib

import numpy as np


def tensor(name, shape):
    """Draws a tensor: kernels with He's initialisation, variances and scales near 1, means and biases near 0; float32.

    The last part of a PyTorch or Keras name tells the kind of the tensor.
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    leaf = name.replace("/", ".").rpartition(".")[2]
    if leaf in ("weight", "kernel") and len(shape) > 1:
        outputs = shape[0] if leaf == "weight" else shape[-1]
        return (rng.standard_normal(shape) * np.sqrt(2 * outputs / np.prod(shape))).astype(np.float32)
    if leaf in ("running_var", "moving_variance"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if leaf in ("weight", "gamma"):
        return rng.uniform(0.3, 0.7, shape).astype(np.float32)
    return (0.1 * rng.standard_normal(shape)).astype(np.float32)


def images(count, side):
    """Draws images [count, side, side, 3], float32 with pixels from 0 to 255."""
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3)).astype(np.float32)
