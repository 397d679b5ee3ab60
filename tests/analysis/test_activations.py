"""Activation memory counted from a program, against what XLA's compiler sets aside, and against counts by hand."""

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
    """Bytes kept for the backward pass of f by its first argument."""

    def forward(*arguments):
        return jax.tree.leaves(jax.vjp(lambda x: f(x, *arguments[1:]), arguments[0])[1])

    jaxpr = jax.make_jaxpr(forward)(*arguments).jaxpr
    return sorted(b for b in kept_bytes(jaxpr, jaxpr.outvars).values() if b)


def test_inputs_cost_nothing():
    assert kept(jnp.dot, jnp.ones((3, 5)), jnp.ones((5, 7))) == []


def test_what_is_in_between_counts_once():
    w = jnp.ones((5, 5))
    x = jnp.ones((3, 5))
    assert kept(lambda w, x: ((x @ w) @ w) @ w, w, x) == [3 * 5 * FLOAT] * 2  # the last product is not needed


def test_a_mask_is_as_small_as_it_is_stored():
    w, x = jnp.ones((5, 7)), jnp.ones((3, 5))
    # The mask of the ReLU, a byte each, and its output.
    assert kept(lambda w, x: (jax.nn.relu(x @ w) @ w.T).sum(), w, x) == [3 * 7, 3 * 7 * FLOAT]


@pytest.mark.parametrize("unroll", [1, 6])
def test_a_loop_keeps_what_each_round_leaves(unroll):
    """Twice the product, which the derivative of a square needs, is made again from it: not in a loop."""
    w, x = jnp.ones((5, 5)), jnp.ones((3, 5))

    def f(w, x):
        def a_round(x, _):
            y = x @ w
            return jnp.square(y) + jnp.sin(y), None  # keeps y for both

        return lax.scan(a_round, x, length=6, unroll=unroll)[0]

    a_round = 3 * 5 * FLOAT
    x_cos_and_twice_y = [6 * a_round] * 3
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
def test_xla_sets_aside_as_much(name, batch, keys):
    """The temporaries of the compiled step, less the parameters' gradients: 0.85 to 1.2 times the count."""
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
