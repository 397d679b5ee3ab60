"""Tests of the paper's colour augmentation, against NumPy and the covariance that its formula implies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_flax import config
from resnet_flax.data import datasets, pixels
from resnet_flax.data.colour import principal_offsets
from resnet_flax.data.pixels import Normalization
from resnet_flax.data.streaming import Pipeline
from resnet_flax.data.transforms import Transform, example_keys

# From facebook/fb.resnet.torch, datasets/imagenet.lua.
EIGENVALUES = [0.2175, 0.0188, 0.0045]
EIGENVECTORS = [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]


def test_offsets_equal_those_in_numpy():
    keys = jax.random.split(jax.random.key(3), 50)
    found = principal_offsets(keys, 0.1, jnp.float32)
    assert (found.shape, found.dtype) == ((50, 1, 1, 3), jnp.float32)
    for key, offsets in zip(keys, np.asarray(found)[:, 0, 0], strict=True):
        alphas = 0.1 * np.asarray(jax.random.normal(key, (3,)), np.float64)
        # [p1, p2, p3][a1 l1, a2 l2, a3 l3]^T (AlexNet's paper, section 4.1)
        components = zip(alphas, EIGENVALUES, np.transpose(EIGENVECTORS), strict=True)
        expected = sum(alpha * value * vector for alpha, value, vector in components)
        np.testing.assert_allclose(offsets, expected, rtol=1e-5, atol=1e-7)


def test_the_covariance_is_that_of_the_formula():
    count = 40_000
    found = np.asarray(principal_offsets(jax.random.split(jax.random.key(0), count), 0.1, jnp.float32))[:, 0, 0]
    vectors = np.asarray(EIGENVECTORS)
    expected = 0.1**2 * vectors @ np.diag(np.square(EIGENVALUES)) @ vectors.T
    deviation = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(np.cov(found.T), expected, atol=5 * deviation.max() ** 2 * (2 / count) ** 0.5)
    assert (np.abs(found.mean(0)) < 5 * deviation / count**0.5).all()


def test_an_image_does_not_depend_on_its_neighbours():
    keys = jax.random.split(jax.random.key(1), 8)
    together, alone = principal_offsets(keys, 0.1, jnp.float32), principal_offsets(keys[5:6], 0.1, jnp.float32)
    np.testing.assert_allclose(together[5], alone[0], rtol=1e-6)
    assert len(np.unique(np.asarray(together)[:, 0, 0, 0])) == 8


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_deviation_of_0_changes_nothing(dtype):
    offsets = principal_offsets(jax.random.split(jax.random.key(0), 2), 0.0, jnp.dtype(dtype))
    assert offsets.dtype == dtype
    assert not np.asarray(offsets, np.float32).any()


def test_a_training_batch_is_shifted_by_its_offsets():
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), np.uint8)
    transform = Transform(Normalization(np.full(3, 0.5), np.full(3, 0.25)), jnp.float32, colour=0.1)
    place, step = jnp.arange(4, dtype=jnp.uint32), jnp.int32(7)
    found = transform.train({"images": jnp.asarray(images), "place": place}, 3, step)
    offsets = np.asarray(principal_offsets(example_keys(3, "colour", step, place), 0.1, jnp.float32))
    np.testing.assert_allclose(found, (images / 255 + offsets - 0.5) / 0.25, atol=1e-5)
    np.testing.assert_allclose(transform.evaluate(jnp.asarray(images)), (images / 255 - 0.5) / 0.25, atol=1e-5)


def test_configs_augment_like_the_paper():
    """Sections 3.4 and 4.2 of arXiv:1512.03385."""
    none = pixels.constants("none", 3)
    cifar, imagenet = (
        datasets.unread(config.resolve(config.load(f"configs/{file}.py")).data).access
        for file in ("cifar10", "imagenet")
    )
    assert cifar.transform(none, jnp.float32) == Transform(none, jnp.float32, pad=4, flip=True)
    assert imagenet.pipeline == Pipeline(224, 256, "bilinear", "scale", (256, 480), flip=True)
    assert imagenet.transform(none, jnp.float32).colour == 0.1
