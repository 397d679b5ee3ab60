"""Tests re-estimated BN statistics against a plain loop over batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_flax.data import pixels
from resnet_flax.data.images import Images
from resnet_flax.data.transforms import Transform
from resnet_flax.training.reestimation import reestimate
from tests.marks import slow
from tests.networks.small import network, variables_of


@pytest.mark.parametrize(
    ("batch_size", "frozen"),
    [
        slow(5, False),
        slow(23, False),
        slow(100, False),
        (5, True),
    ],
)
def test_statistics_are_averages_over_the_batches(double, batch_size, frozen):
    """Tests 23 images in batches of 5 (the last has 3), in one batch, and in a batch larger than the data set.

    A frozen network is also tested, which does not update its statistics in training.
    """
    rng = np.random.default_rng(0)
    data = Images(rng.integers(0, 256, (23, 8, 8, 3), np.uint8), np.zeros(23, np.int32))
    normalization = pixels.normalization("none", data)
    net = network("residual")
    x = normalization(jnp.asarray(data.images), jnp.float64)
    variables = variables_of(net, x[:1])
    transform = Transform(normalization, jnp.float64)

    def found_of(images):
        batches = (images[i : i + batch_size] for i in range(0, 23, batch_size))
        return reestimate(net.clone(frozen=frozen), variables["params"], transform, batches)

    expected = jax.tree.map(np.zeros_like, variables["batch_stats"])
    apply = jax.jit(lambda variables, batch: net.apply(variables, batch, True, mutable=["batch_stats"]))
    # A running statistic moves by a tenth towards that of the batch.
    for i in range(0, 23, batch_size):
        batch = x[i : i + batch_size]
        share = len(batch) / 23
        _, new = apply(variables, batch)
        expected = jax.tree.map(
            lambda total, old, new, share=share: total + share * (new - 0.9 * old) / 0.1,
            expected, variables["batch_stats"], new["batch_stats"],
        )  # fmt: skip
    found, from_disk = found_of(jnp.asarray(data.images)), found_of(data.images)
    for of in (found, from_disk):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10), of, expected)
    stem = found["stem_bn"]["mean"]
    seen = ["batch_stats", "intermediates"]
    convolve = jax.jit(lambda variables, x: net.apply(variables, x, True, mutable=seen, capture_intermediates=True)[1])
    response = convolve(variables, x)["intermediates"]["stem_conv"]["__call__"][0]
    np.testing.assert_allclose(stem, response.mean((0, 1, 2)), rtol=1e-9)
