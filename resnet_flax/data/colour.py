"""The paper's "standard color augmentation" (section 3.4), which is AlexNet's, along the principal axes of RGB."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

# Principal components of ImageNet's pixels in [0, 1]: standard deviations and directions (columns), with the numbers
# of Torch's and the usual PyTorch recipes (facebook/fb.resnet.torch, datasets/imagenet.lua).
_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
_EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


def principal_offsets(keys: Array, deviation: float, dtype: jnp.dtype) -> Array:
    """Draws a colour offset for each image, to be added to all its pixels.

    An offset is the sum of the principal components, each times its standard deviation and a normal random number of
    standard deviation ``deviation``, which is 0.1 in AlexNet's paper (NeurIPS 2012, section 4.1).

    Args:
      keys: [n] random keys, one for each image.
      deviation: The standard deviation of the random numbers.
      dtype: The type of the offsets.

    Returns:
      [n, 1, 1, 3] of ``dtype``, in units where white is 1.
    """
    alphas = deviation * jax.vmap(lambda key: jax.random.normal(key, (3,), jnp.float32))(keys)
    offsets = (alphas.astype(dtype) * _EIGENVALUES.astype(dtype)) @ _EIGENVECTORS.T.astype(dtype)
    return offsets[:, None, None, :]
