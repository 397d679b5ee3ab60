"""The convolution and its gradients, compared with XLA's and with finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.test_util import check_grads

from resnet_flax.networks import compilation, cpu_convolution, xla_convolution
from resnet_flax.networks.convolution import convolution
from tests.marks import slow


def xla(x, kernel, stride):
    pad = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), ((pad, pad),) * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def inputs(seed, n, height, width, c, f, size, dtype=np.float32):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, height, width, c)).astype(dtype)
    return jnp.asarray(x), jnp.asarray(rng.standard_normal((size, size, c, f)).astype(dtype) / size)


shapes = st.tuples(
    st.integers(0, 2**32 - 1),  # seed
    st.integers(1, 7),  # images
    st.integers(1, 17),  # height
    st.integers(1, 17),  # width
    st.integers(1, 5),  # channels
    st.integers(1, 5),  # filters
    st.sampled_from([1, 3, 7]),  # kernel
)


@settings(max_examples=20)
@given(shapes, st.sampled_from([1, 2]))
def test_equals_xla_forward_and_backward(shape, stride):
    x, kernel = inputs(*shape)
    y, pull = jax.vjp(lambda x, k: convolution(x, k, stride), x, kernel)
    expected, expected_pull = jax.vjp(lambda x, k: xla(x, k, stride), x, kernel)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    dy = jnp.asarray(np.random.default_rng(shape[0] + 1).standard_normal(y.shape).astype(np.float32))
    for ours, theirs in zip(pull(dy), expected_pull(dy), strict=True):
        scale = np.abs(theirs).max() + 1
        np.testing.assert_allclose(np.asarray(ours) / scale, np.asarray(theirs) / scale, atol=3e-6)


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [8, 9])
def test_equals_xla_to_the_last_digits_in_float64(double, size, stride, side):
    x, kernel = inputs(0, 3, side, side + 1, 4, 6, size, np.float64)
    dy = jnp.asarray(np.random.default_rng(1).standard_normal(xla(x, kernel, stride).shape))
    ours = jax.vjp(lambda x, k: convolution(x, k, stride), x, kernel)[1](dy)
    theirs = jax.vjp(lambda x, k: xla(x, k, stride), x, kernel)[1](dy)
    elsewhere = [f(x, kernel, dy, stride) for f in (xla_convolution.input_gradient, xla_convolution.kernel_gradient)]
    for a, b, c in zip(ours, theirs, elsewhere, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(c, b, rtol=1e-12, atol=1e-12)


def test_second_derivatives_agree_with_finite_differences(double):
    x, kernel = inputs(0, 2, 5, 6, 2, 3, 3, np.float64)
    for stride in (1, 2):
        check_grads(lambda x, k, s=stride: jnp.sin(convolution(x, k, s)), (x, kernel), order=2, modes=["rev"])


@pytest.mark.parametrize("images", [1, slow(7), 40])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [4, 32])
def test_chunks_of_the_batch(double, monkeypatch, images, stride, channels):
    """The backward pass by matrix products, over chunks of one or a few images, for several batch sizes."""
    x, kernel = inputs(0, images, 6, 7, channels, 4, 3, np.float64)
    expected, pull = jax.vjp(lambda x, k: xla(x, k, stride), x, kernel)
    for in_chunk in (1, 5):
        monkeypatch.setattr(cpu_convolution, "CHUNK_ELEMENTS", in_chunk * 6 * 7 * 3 * (channels + 4))
        y, ours = jax.vjp(lambda x, k: convolution(x, k, stride), x, kernel)
        np.testing.assert_allclose(y, expected, rtol=1e-11, atol=1e-11)
        for a, b in zip(ours(expected), pull(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", ["float32", slow("float64")])
@pytest.mark.parametrize(("height", "width"), [slow(3, 3), (8, 8), (7, 14)])
@pytest.mark.parametrize(("channels", "filters"), [(16, 16), slow(32, 32), (64, 96)])
def test_at_the_widths_of_real_networks(double, monkeypatch, dtype, height, width, channels, filters):
    """Pairs, Winograd's method and matrix products compared with XLA's, for small, larger and whole-batch chunks."""
    x, kernel = inputs(0, 5, height, width, channels, filters, 3, np.float64)
    expected, pull = jax.vjp(lambda x, k: xla(x, k, 1), x, kernel)
    tolerance = {"float64": 1e-12, "float32": 1e-5}[dtype]
    for in_chunk in (4, 8, 1000):
        elements = 6 * height * -(-width // 4) * (3 * channels + filters)
        monkeypatch.setattr(cpu_convolution, "CHUNK_ELEMENTS", in_chunk * elements)
        y, ours = jax.vjp(lambda x, k: convolution(x, k, 1), x.astype(dtype), kernel.astype(dtype))
        assert y.dtype == dtype
        for a, b in zip((y, *ours(expected.astype(dtype))), (expected, *pull(expected)), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize(("side", "channels", "filters", "stride"), [(8, 16, 16, 1), (8, 16, 32, 2), slow(9, 3, 16, 1)])
def test_in_programs_with_onednn(side, channels, filters, stride):
    """Output and gradients equal XLA's when oneDNN computes what it supports (nothing, with an older jaxlib)."""
    x, kernel = inputs(0, 5, side, side, channels, filters, 3)
    y, pull = jax.vjp(lambda x, k: xla(x, k, stride), x, kernel)

    def ours(x, kernel, dy):
        y, pull = jax.vjp(lambda x, k: convolution(x, k, stride), x, kernel)
        return y, *pull(dy)

    for a, b in zip(compilation.jit(ours, onednn=True)(x, kernel, y), (y, *pull(y)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


def test_winograds_method_is_used_where_it_is_faster():
    """The last two stages of ResNet-20 use the method; bfloat16, few channels and large images do not."""

    def used(side, channels, dtype=jnp.float32):
        x, kernel = jnp.zeros((1, side, side, channels), dtype), jnp.zeros((3, 3, channels, channels), dtype)
        least = (4 * cpu_convolution.THIN, 2 * cpu_convolution.THIN)  # forward, and for the kernel's gradient
        return tuple(cpu_convolution.suits_winograd(x, kernel, 1, channels) for channels in least)

    assert (used(32, 16), used(16, 32), used(8, 64)) == ((False, False), (False, True), (True, True))
    assert used(8, 64, jnp.bfloat16) == used(56, 64) == (False, False)
    assert used(14, 256) == (True, True)


@pytest.mark.parametrize(("stride", "channels"), [(1, 8), (2, 8), (1, 32)])
def test_bfloat16_gradients_are_summed_in_float32(stride, channels):
    """Gradients of bfloat16 values have the rounding error of their result, not of each partial sum."""
    x, kernel = (a.astype(jnp.bfloat16) for a in inputs(0, 16, 16, 16, channels, channels, 3))
    dy = xla(x, kernel, stride)
    _, dkernel = jax.vjp(lambda x, k: convolution(x, k, stride), x, kernel)[1](dy)
    exact = jax.vjp(lambda k: xla(x.astype(jnp.float32), k, stride), kernel.astype(jnp.float32))[1](
        dy.astype(jnp.float32)
    )[0]
    assert dkernel.dtype == jnp.bfloat16
    np.testing.assert_allclose(dkernel.astype(np.float32), exact, rtol=2**-7, atol=2**-7 * np.abs(exact).max())
