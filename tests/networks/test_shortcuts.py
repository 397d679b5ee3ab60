"""Shortcut options A, B and C, as section 3.3 of arXiv:1512.03385 defines them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_flax.networks.initialization import initializer
from resnet_flax.networks.layers import Layers
from resnet_flax.networks.shortcuts import shortcut, subsample_and_pad
from resnet_flax.networks.units import PlainUnit, ResidualUnit


def test_option_a_takes_every_second_position_and_adds_zero_channels():
    x = jnp.arange(2 * 4 * 4 * 3, dtype=jnp.float32).reshape(2, 4, 4, 3)
    y = subsample_and_pad(x, 6, 2, "end")
    assert y.shape == (2, 2, 2, 6)
    for i in range(2):
        for j in range(2):
            np.testing.assert_array_equal(y[:, i, j, :3], x[:, 2 * i, 2 * j])
    assert not y[..., 3:].any()


@pytest.mark.parametrize(("widened", "before"), [(32, 8), (64, 24), (17, 0)])
def test_option_a_on_both_sides_is_the_peers(widened, before):
    """akamaster/pytorch_resnet_cifar10 has F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, planes // 4, planes // 4))."""
    x = jnp.ones((1, 5, 5, 16))
    y = subsample_and_pad(x, widened, 2, "both")
    assert y.shape == (1, 3, 3, widened)
    np.testing.assert_array_equal(np.flatnonzero(y[0, 0, 0]), before + np.arange(16))


def test_option_a_cannot_narrow():
    with pytest.raises(ValueError, match="cannot narrow 8 channels to 4; choose"):
        subsample_and_pad(jnp.ones((1, 4, 4, 8)), 4, 1, "end")


def projections(option, stride, filters):
    class Alone(nn.Module):
        @nn.compact
        def __call__(self, x):
            return shortcut(x, filters, stride, Layers(initializer("he"), shortcut=option), train=False)

    x = jnp.ones((1, 6, 6, 8))
    variables = jax.eval_shape(Alone().init, jax.random.key(0), x)
    y = jax.eval_shape(Alone().apply, variables, x)
    assert y.shape == (1, -(-6 // stride), -(-6 // stride), filters)
    return sorted(variables.get("params", {}))


def test_where_projections_stand():
    both = ["shortcut_bn", "shortcut_conv"]
    assert projections("A", 1, 8) == projections("A", 2, 16) == []
    assert projections("B", 1, 8) == []
    assert projections("B", 2, 16) == projections("B", 1, 16) == projections("B", 2, 8) == both
    assert projections("C", 1, 8) == projections("C", 2, 16) == both


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_a_plain_unit_is_a_residual_one_without_its_shortcut(block):
    """relu(F(x)) and relu(F(x) + x) with the same F differ by x where both are positive."""
    layers = Layers(initializer("he"), block=block)
    plain, residual = PlainUnit(8, 1, layers), ResidualUnit(8, 1, layers)
    x = jax.random.normal(jax.random.key(1), (4, 6, 6, 8))
    variables = plain.init(jax.random.key(0), x, True)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, residual.init(jax.random.key(0), x, True))
    y = plain.apply(variables, x, True, mutable=["batch_stats"])[0]
    z = residual.apply(variables, x, True, mutable=["batch_stats"])[0]
    both = (y > 0) & (z > 0)
    assert both.mean() > 0.2
    np.testing.assert_allclose((z - y)[both], x[both], atol=1e-5)
