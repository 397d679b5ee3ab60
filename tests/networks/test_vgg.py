"""VGG networks compared with PyTorch's, from the same weights; and their max pooling with XLA's."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_flax.networks.network import max_pool_2x2
from tests.networks.small import images_and_labels, loss_and_gradients, network, variables_of


@settings(max_examples=12)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
def test_max_pooling_rounds_sides_up(seed, height, width):
    """Outputs equal XLA's; gradients do where the largest entry is unique, as it is for random numbers."""
    x = jnp.asarray(np.random.default_rng(seed).standard_normal((2, height, width, 3)), jnp.float32)
    shape = (2, -(-height // 2), -(-width // 2), 3)
    dy = np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)

    @partial(jax.jit, static_argnums=0)
    def with_gradient(pool, x, dy):
        y, pull = jax.vjp(pool, x)
        return y, pull(dy)[0]

    ours, expected = (with_gradient(p, x, dy) for p in (max_pool_2x2, lambda x: nn.max_pool(x, (2, 2), (2, 2), "SAME")))
    jax.tree.map(np.testing.assert_array_equal, ours, expected)


def test_max_pooling_of_bfloat16():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 7, 3)), jnp.bfloat16)
    assert max_pool_2x2(x).dtype == jnp.bfloat16
    np.testing.assert_array_equal(max_pool_2x2(x).astype(np.float32), max_pool_2x2(x.astype(jnp.float32)))


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_loss_and_gradients_are_pytorchs(double, norm):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    units = (1, 1, 2, 2, 2)  # VGG-11
    x, labels = images_and_labels(side=20)  # odd sides at the third pooling
    net = network(
        "plain", "single", family="vgg", stage_units=(), depth=11, stage_filters=(4, 5, 6, 7, 8), width=1.0,
        hidden=(9, 10), norm=norm,
    )  # fmt: skip
    assert net.stage_units == units
    variables = variables_of(net, x)
    (ours, _), (gradients, _) = loss_and_gradients(net, variables, x, labels)

    p = jax.tree.map(lambda a: torch.tensor(np.array(a), requires_grad=True), variables["params"])
    y = torch.tensor(np.array(x)).permute(0, 3, 1, 2)
    for i, n in enumerate(units, start=1):
        for j in range(n):
            stage = p[f"stage{i}"]
            unit = stage["first"] if j == 0 else jax.tree.map(lambda a, j=j: a[j - 1], stage["rest"])
            y = functional.conv2d(y, unit["conv1"]["kernel"].permute(3, 2, 0, 1), unit["conv1"].get("bias"), padding=1)
            if norm == "batch":
                y = functional.batch_norm(y, None, None, unit["bn1"]["scale"], unit["bn1"]["bias"], training=True)
            else:
                y = y + unit["bn1"]["bias"][:, None, None]
            y = functional.relu(y)
        y = functional.max_pool2d(y, 2, ceil_mode=True)
    y = y.permute(0, 2, 3, 1).flatten(1)
    for name in ("hidden1", "hidden2", "dense"):
        y = y @ p[name]["kernel"] + p[name]["bias"]
        y = functional.relu(y) if name != "dense" else y
    theirs = functional.cross_entropy(y, torch.tensor(np.array(labels), dtype=torch.long))
    theirs.backward()

    np.testing.assert_allclose(float(ours), theirs.item(), rtol=1e-9)
    expected = jax.tree.map(lambda t: t.grad.numpy(), p)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9), gradients, expected)
