"""Tests that scanned units, whose layers are stacked in one array, are optimised as if each had its own arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from resnet_flax import config
from resnet_flax.training import optimizer as optimizers
from tests.marks import slow
from tests.networks import small

OPTIMIZERS = {
    "sgd": {},
    "nesterov": {"nesterov": True},
    "adamw": {"name": "adamw", "weight_decay": 0.05, "decay": "kernels"},
    "lars": {"name": "lars", "weight_decay": 0.01, "trust_coefficient": 0.05},
}


def unstacked(params):
    """Splits the stacked units of each stage into ``unit2``, ``unit3``, ..., each with its own arrays."""
    found = dict(params)
    for stage in (name for name in params if name.startswith("stage")):
        found[stage] = {"first": params[stage]["first"]}
        rest = params[stage].get("rest", {})
        for i in range(len(jax.tree.leaves(rest)[0]) if rest else 0):
            found[stage][f"unit{i + 2}"] = jax.tree.map(lambda a, i=i: a[i], rest)
    return found


@pytest.mark.parametrize("ema", [slow(0.0), 0.9])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("unit", [slow("residual"), "highway"])
def test_stacked_units_are_updated_like_separate_ones(double, unit, name, ema):
    """Compares parameters and their average after three steps, with gradients of a different size for each unit."""
    c = config.base().optimizer
    c.update(OPTIMIZERS[name])
    network, optimizer = small.network(unit, width=0.25, stage_units=(3,)), optimizers.build(c, lambda step: 0.1)
    start = small.variables_of(network, jnp.zeros((1, 8, 8, 3)))["params"]
    assert start["stage1"]["rest"]["conv1"]["kernel"].shape[0] == 2
    rng = np.random.default_rng(2)

    def gradient(path, leaf):
        sizes = (100.0 ** np.arange(len(leaf))).reshape(-1, *[1] * (leaf.ndim - 1)) if "rest" in str(path) else 1
        return jnp.asarray(rng.standard_normal(leaf.shape) * sizes)

    gradients = [jax.tree_util.tree_map_with_path(gradient, start) for _ in range(3)]

    @jax.jit
    def update(params, state, average, given, step):
        updates, state = optimizer.update(given, state, params)
        params = optax.apply_updates(params, updates)
        return params, state, optimizers.moving_average(average, params, step, ema) if ema else params

    def trained(params, gradients):
        state, average = optimizer.init(params), params
        for step, given in enumerate(gradients):
            params, state, average = update(params, state, average, given, step)
        return params, average

    ours, theirs = trained(start, gradients), trained(unstacked(start), [unstacked(g) for g in gradients])
    for scanned, twin in zip(ours, theirs, strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-13), unstacked(scanned), twin)
    moved = ours[0]["stage1"]["rest"]["conv1"]["kernel"] - start["stage1"]["rest"]["conv1"]["kernel"]
    assert np.abs(moved).max((1, 2, 3, 4)).min() > 1e-6


def test_lars_scales_each_stacked_layer_on_its_own(double):
    """Regression test: gradients of 1 and 100 gave steps of 1.4% and 141% of the right size."""
    c = config.base().optimizer
    c.update(name="lars", weight_decay=0.0, momentum=0.0, trust_coefficient=0.02)
    optimizer = optimizers.build(c, lambda step: 0.5)
    kernel = jnp.asarray(np.random.default_rng(0).standard_normal((3, 3, 4, 4)))
    params = {"stage1": {"rest": {"conv1": {"kernel": jnp.stack([kernel, kernel])}}}}
    gradient = jax.tree.map(lambda k: jnp.stack([k[0], 100 * k[1]]), params)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    steps = jnp.linalg.norm(updates["stage1"]["rest"]["conv1"]["kernel"].reshape(2, -1), axis=1)
    np.testing.assert_allclose(steps, 0.5 * 0.02 * np.linalg.norm(kernel), rtol=1e-9)
