"""Initializers compared with the variances in their papers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_flax.networks.initialization import INITIALIZATIONS, initializer

K, C, F = 3, 64, 256
VARIANCES = {
    "he": 2 / (K * K * C),  # He et al. 2015 (arXiv:1502.01852), eq. 10
    "he_fan_out": 2 / (K * K * F),  # eq. 14
    "lecun": 1 / (K * K * C),
    "glorot": 2 / (K * K * (C + F)),
}


@pytest.mark.parametrize(("name", "variance"), VARIANCES.items())
def test_variance_of_an_untruncated_normal(name, variance):
    draws = np.asarray(initializer(name)(jax.random.key(0), (K, K, C, F), jnp.float32)).ravel() / np.sqrt(variance)
    assert abs(draws.var() - 1) < 0.02
    # A normal distribution cut at two standard deviations has nothing beyond 2.3 times its own.
    assert abs((np.abs(draws) > 2.5).mean() - 0.01242) < 0.002


def test_orthogonal_columns():
    kernel = np.asarray(initializer("orthogonal")(jax.random.key(0), (3, 3, 16, 32), jnp.float32)).reshape(-1, 32)
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(32), atol=1e-5)


def test_every_initializer_is_compared_with_its_definition():
    assert set(INITIALIZATIONS) == set(VARIANCES) | {"orthogonal"}
