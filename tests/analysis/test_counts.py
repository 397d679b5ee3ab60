"""Multiply-adds counted from a program, compared with counts by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from resnet_flax.analysis.counts import multiply_adds_of
from resnet_flax.networks.convolution import convolution


def test_a_matrix_product():
    assert multiply_adds_of(jnp.dot, jnp.ones((3, 5)), jnp.ones((5, 7))) == 3 * 5 * 7


def test_a_strided_grouped_convolution():
    def f(x, k):
        return lax.conv_general_dilated(
            x, k, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
        )

    assert multiply_adds_of(f, jnp.ones((4, 8, 8, 6)), jnp.ones((3, 3, 3, 10))) == 4 * 4 * 4 * 10 * 9 * 3


def test_a_loop_counts_as_often_as_it_runs():
    def f(x):
        return lax.scan(lambda c, _: (c @ c, None), x, length=11)[0]

    assert multiply_adds_of(jax.jit(f), jnp.ones((3, 3))) == 11 * 27


def test_a_conditional_counts_as_its_largest_branch():
    def f(x):
        return lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert multiply_adds_of(f, jnp.ones((3, 3))) == 54


def test_a_choice_by_platform_counts_as_its_default_branch():
    def f(x):
        return lax.platform_dependent(x, cpu=lambda x: x @ x @ x, default=lambda x: x @ x)

    assert multiply_adds_of(f, jnp.ones((3, 3))) == 27


@pytest.mark.parametrize("stride", [1, 2])
def test_each_gradient_of_a_convolution_counts_as_much_as_the_convolution(stride):
    """Each multiply-add of the forward pass has one in either gradient; inserted zeros do not count."""
    x, kernel = jnp.ones((2, 8, 8, 6)), jnp.ones((3, 3, 6, 10))
    forward = multiply_adds_of(lambda x, k: convolution(x, k, stride), x, kernel)
    assert forward == 2 * (8 // stride) ** 2 * 10 * 9 * 6
    both = multiply_adds_of(jax.value_and_grad(lambda x, k: convolution(x, k, stride).sum(), (0, 1)), x, kernel)
    assert both == 3 * forward


def test_an_endless_loop_is_refused():
    with pytest.raises(ValueError, match="while loop"):
        multiply_adds_of(lambda x: lax.while_loop(lambda x: x[0, 0] > 0, lambda x: x @ x, x), jnp.ones((3, 3)))
