"""Batch normalisation compared with its formula in NumPy, for all numbers of devices and sizes of groups."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from resnet_flax.networks.normalization import BatchNorm
from resnet_flax.training.devices import DATA_AXIS, data_mesh
from tests.marks import slow
from tests.networks.small import images_and_labels, network, variables_of


def numpy_batch_norm(x, group, scale, bias, eps=1e-5):
    """Returns the output, and the averages over groups of the mean and of the unbiased variance."""
    outputs, means, variances = [], [], []
    for start in range(0, len(x), group):
        part = x[start : start + group]
        mean, var = part.mean((0, 1, 2)), part.var((0, 1, 2))
        outputs.append((part - mean) / np.sqrt(var + eps) * scale + bias)
        count = part[..., 0].size
        means.append(mean)
        variances.append(var * count / (count - 1))
    return np.concatenate(outputs), np.mean(means, 0), np.mean(variances, 0)


@pytest.fixture
def example(double):
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (16, 3, 5, 4))
    params = {"scale": rng.normal(1, 0.3, 4), "bias": rng.normal(0, 0.3, 4)}
    return x, params, {"mean": rng.normal(0, 1, 4), "var": rng.uniform(0.5, 2, 4)}


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize(
    ("group", "gpu"), [*((n, False) for n in (0, 1, 2, 4, 8, 16)), (0, True), (1, True), (8, True)]
)
def test_training_on_any_number_of_devices(example, group, gpu, devices):
    x, params, stats = example
    layer = BatchNorm(group=group, axis_name=DATA_AXIS, dtype=jnp.float64, param_dtype=jnp.float64, gpu=gpu)
    mesh = jax.make_mesh((devices,), (DATA_AXIS,), axis_types=data_mesh().axis_types, devices=jax.devices()[:devices])
    split, whole = PartitionSpec(DATA_AXIS), PartitionSpec()

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(whole, split), out_specs=(split, whole), check_vma=False)
    def apply(variables, x):
        y, updates = layer.apply(variables, x, True, mutable=["batch_stats"])
        return y, jax.lax.pmean(updates["batch_stats"], DATA_AXIS)

    y, updated = apply({"params": params, "batch_stats": stats}, x)
    expected, mean, var = numpy_batch_norm(x, group or 16, params["scale"], params["bias"])
    np.testing.assert_allclose(y, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(updated["mean"], 0.9 * stats["mean"] + 0.1 * mean, rtol=1e-9)
    np.testing.assert_allclose(updated["var"], 0.9 * stats["var"] + 0.1 * var, rtol=1e-9)


def test_evaluation_uses_running_statistics(example):
    x, params, stats = example
    layer = BatchNorm(dtype=jnp.float64, param_dtype=jnp.float64)
    y = layer.apply({"params": params, "batch_stats": stats}, x, False)
    expected = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * params["scale"] + params["bias"]
    np.testing.assert_allclose(y, expected, rtol=1e-9)


def test_statistics_of_bfloat16_are_float32():
    x = jax.random.normal(jax.random.key(0), (64, 8, 8, 4), jnp.bfloat16)
    layer = BatchNorm(dtype=jnp.bfloat16)
    variables = layer.init(jax.random.key(0), x, True)
    y, updates = layer.apply(variables, x, True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert updates["batch_stats"]["mean"].dtype == jnp.float32
    exact = np.asarray(x, np.float32).mean((0, 1, 2))
    np.testing.assert_allclose(updates["batch_stats"]["mean"], 0.1 * exact, atol=1e-6)


@pytest.mark.parametrize("group", [0, 4])
def test_gradients_have_the_parameters_type(double, group):
    """Regression test: those of float64 images were float64, too, which is an error for float32 parameters."""
    x = jnp.ones((16, 3, 5, 4), jnp.float64)
    layers = [BatchNorm(group=group, dtype=jnp.float64, gpu=gpu) for gpu in (False, True)]
    variables = layers[0].init(jax.random.key(0), x, True)

    def types(layer):
        def loss(params, x):
            return layer.apply({**variables, "params": params}, x, True, mutable=["batch_stats"])[0].sum()

        return jax.eval_shape(jax.grad(loss, argnums=(0, 1)), variables["params"], x)

    expected = {"scale": jax.ShapeDtypeStruct((4,), jnp.float32), "bias": jax.ShapeDtypeStruct((4,), jnp.float32)}
    assert types(layers[0]) == types(layers[1]) == (expected, jax.ShapeDtypeStruct(x.shape, jnp.float64))


def test_a_group_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="bn_group=3 does not divide the 16 images"):
        BatchNorm(group=3).init(jax.random.key(0), jnp.ones((16, 2, 2, 1)), True)


def test_a_large_mean_does_not_make_the_variance_negative():
    """The one-pass variance loses digits if the mean is large, but must not become negative."""
    x = 3000 + 0.01 * jax.random.normal(jax.random.key(0), (32, 4, 4, 2))
    assert (jnp.square(x).mean((0, 1, 2)) < jnp.square(x.mean((0, 1, 2)))).all()  # It would become negative.
    layer = BatchNorm()
    y, _ = layer.apply(layer.init(jax.random.key(0), x, True), x, True, mutable=["batch_stats"])
    assert np.isfinite(y).all()


@pytest.mark.parametrize("unit", ["plain", "preactivation", slow("residual"), slow("highway")])
def test_without_bn_a_bias_takes_the_place_of_each_bn(double, unit):
    """The bias has a BN's name and place, and acts like a BN with mean 0, variance 1 and scale 1, also in training."""
    x, _ = images_and_labels()
    normalised, bare = network(unit, bn_epsilon=1e-300), network(unit, norm="none")
    variables = variables_of(normalised, x)
    assert set(jax.eval_shape(bare.init, jax.random.key(0), x)) == {"params"}

    def neutral(path, leaf):
        return jnp.zeros_like(leaf) if path[-1].key == "mean" else jnp.ones_like(leaf)

    def without_scales(tree):
        if not isinstance(tree, dict):
            return tree
        return {k: without_scales(v) for k, v in tree.items() if k != "scale"}

    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.ones_like(leaf) if path[-1].key == "scale" else leaf, variables["params"]
    )
    statistics = jax.tree_util.tree_map_with_path(neutral, variables["batch_stats"])
    expected = jax.jit(normalised.apply)({"params": params, "batch_stats": statistics}, x)
    apply = jax.jit(lambda p, train: bare.apply({"params": p}, x, train), static_argnums=1)
    for train in (False, True):
        np.testing.assert_allclose(apply(without_scales(params), train), expected, rtol=1e-9)
    start = jax.tree.map(jnp.shape, without_scales(params))
    assert jax.tree.map(jnp.shape, jax.eval_shape(bare.init, jax.random.key(0), x)["params"]) == start
