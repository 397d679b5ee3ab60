"""Activation memory counted from a program, compared with counts by hand and with what XLA allocates."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from resnet_flax import config
from resnet_flax.analysis import counts
from resnet_flax.analysis.activations import kept_bytes
from resnet_flax.analysis.stage_costs import stage_costs
from resnet_flax.networks import build
from resnet_flax.training import optimizer, state
from resnet_flax.training.step import training_step
from tests.marks import slow

FLOAT = 4  # bytes


def kept(f, *arguments):
    """Returns the bytes stored for the backward pass of f with respect to its first argument, one number per array."""

    def forward(*arguments):
        return jax.tree.leaves(jax.vjp(lambda x: f(x, *arguments[1:]), arguments[0])[1])

    jaxpr = jax.make_jaxpr(forward)(*arguments).jaxpr
    return sorted(b for b in kept_bytes(jaxpr, jaxpr.outvars).values() if b)


def test_inputs_cost_nothing():
    assert kept(jnp.dot, jnp.ones((3, 5)), jnp.ones((5, 7))) == []


def test_intermediate_arrays_count_once():
    w = jnp.ones((5, 5))
    x = jnp.ones((3, 5))
    assert kept(lambda w, x: ((x @ w) @ w) @ w, w, x) == [3 * 5 * FLOAT] * 2  # the last product is not needed


def test_a_mask_counts_one_byte_per_element():
    w, x = jnp.ones((5, 7)), jnp.ones((3, 5))
    # The ReLU's mask, one byte per element, and its output.
    assert kept(lambda w, x: (jax.nn.relu(x @ w) @ w.T).sum(), w, x) == [3 * 7, 3 * 7 * FLOAT]


@pytest.mark.parametrize("unroll", [1, 6])
def test_a_loop_stores_the_residuals_of_each_iteration(unroll):
    """A square's derivative needs twice the product, which is recomputed from the product, but stored in a loop."""
    w, x = jnp.ones((5, 5)), jnp.ones((3, 5))

    def f(w, x):
        def iteration(x, _):
            y = x @ w
            return jnp.square(y) + jnp.sin(y), None  # both derivatives need y

        return lax.scan(iteration, x, length=6, unroll=unroll)[0]

    one_array = 3 * 5 * FLOAT
    x_cos_and_twice_y = [6 * one_array] * 3
    assert kept(f, w, x) == x_cos_and_twice_y


@pytest.mark.parametrize(
    ("name", "batch", "keys"),
    [
        slow("plain-14", 128, {}),
        slow("residual-20", 128, {}),
        slow("residual-bottleneck-20", 64, {"model.shortcut": "B"}),
        ("residual-14", 128, {"model.unroll": True}),
    ],
    ids=str,
)
def test_xla_allocates_as_much(name, batch, keys):
    """The temporaries of the compiled step, less the parameters' gradients, are 0.85 to 1.2 times the count."""
    c = config.load("configs/cifar10.py", name, keys)
    network, image = build(c.model, 10), (32, 32, 3)
    sgd = optimizer.build(c.optimizer, lambda step: 0.1)
    at_start = state.abstract_state(network, sgd, image, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    step = jax.jit(lambda s, x, y: training_step(s, x, y, network=network, optimizer=sgd), donate_argnums=0)
    images = jax.ShapeDtypeStruct((batch, *image), jnp.float32)
    memory = step.lower(at_start, images, jax.ShapeDtypeStruct((batch,), jnp.int32)).compile().memory_analysis()

    counted = sum(stage.activation_bytes for stage in stage_costs(network, image, batch))
    gradients = FLOAT * counts.parameters(network, image)
    assert 0.85 < (memory.temp_size_in_bytes - gradients) / counted < 1.2
