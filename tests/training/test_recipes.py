"""Tests of settings that newer recipes use: accumulation, label smoothing, an average of the parameters, LARS."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from resnet_flax import config
from resnet_flax.errors import UserError
from resnet_flax.networks import build
from resnet_flax.training import optimizer as optimizers
from resnet_flax.training.devices import check_accumulation
from resnet_flax.training.state import initial_state
from resnet_flax.training.step import training_step
from tests.marks import slow


@functools.cache
def plain_states():
    return states()


def states(classes=10, group=4, optimizer=None, **keys):
    """Returns the initial state and the states after three steps of 16 images, in float64."""
    c = config.base()
    c.model.update(unit="residual", depth=8, width=0.25, dtype="float64", param_dtype="float64", shortcut="B")
    network = build(c.model, classes, group)
    c.optimizer.update(optimizer or {})
    built = optimizers.build(c.optimizer, lambda step: 0.1)
    ema = c.optimizer.ema
    state = initial_state(network, built, 0, (8, 8, 3), ema=ema)
    rng = np.random.default_rng(0)
    step = jax.jit(lambda s, x, y: training_step(s, x, y, network=network, optimizer=built, ema=ema, **keys))
    found = [state]
    for _ in range(3):
        images, labels = rng.standard_normal((16, 8, 8, 3)), rng.integers(0, classes, 16).astype(np.int32)
        found.append(step(found[-1], jnp.asarray(images), jnp.asarray(labels)))
    return jax.device_get(found)


@pytest.mark.parametrize("accumulate", [slow(2), 4])
def test_accumulation_gives_the_result_of_the_whole_batch(double, accumulate):
    """Compares parameters, momentum, BN's statistics, loss and errors; each BN group lies within a part."""
    whole, parts = plain_states()[3], states(accumulate=accumulate)[3]
    assert whole.sums["errors"] == parts.sums["errors"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), whole, parts)


def test_accumulation_that_would_change_the_result_is_refused():
    c = config.load("configs/digits.py", "residual-8")
    c.train.batch_size, c.train.bn_group = 32, 8
    for parts in (1, 2, 4):
        c.train.accumulate = parts
        check_accumulation(c, 1)
    c.train.accumulate = 8
    with pytest.raises(UserError, match="makes parts of 4 images, but BN normalises 8 images together"):
        check_accumulation(c, 1)
    c.train.accumulate = 3
    with pytest.raises(UserError, match="train.accumulate=3 must divide the 16 images of a device"):
        check_accumulation(c, 2)


def test_label_smoothing_by_its_formula(double):
    """Checks (1 - s) times the cross-entropy plus s times the mean over classes (arXiv:1512.00567, section 7)."""
    smoothing, plain, smooth = 0.1, plain_states()[1], states(label_smoothing=0.1)[1]
    c = config.base()
    c.model.update(unit="residual", depth=8, width=0.25, dtype="float64", param_dtype="float64", shortcut="B")
    network = build(c.model, 10, 4)
    built = optimizers.build(c.optimizer, lambda step: 0.1)
    start = initial_state(network, built, 0, (8, 8, 3))
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((16, 8, 8, 3)), rng.integers(0, 10, 16)
    variables = {"params": start.params, "batch_stats": start.batch_stats}
    logits, _ = jax.jit(lambda v, x: network.apply(v, x, train=True, mutable=["batch_stats"]))(variables, images)
    log_p = np.asarray(jax.nn.log_softmax(logits))
    of_labels, of_all = -log_p[np.arange(16), labels], -log_p.mean(1)
    np.testing.assert_allclose(plain.sums["loss"], of_labels.sum(), rtol=1e-9)
    expected = ((1 - smoothing) * of_labels + smoothing * of_all).sum()
    np.testing.assert_allclose(smooth.sums["loss"], expected, rtol=1e-9)
    assert smooth.sums["errors"] == plain.sums["errors"]


def test_the_average_of_the_parameters(double):
    """e = d e + (1 - d) w with d = min(0.15, (1 + t) / (10 + t)) = 0.1, 0.15, 0.15 after steps t = 0, 1, 2.

    It starts from the initial parameters, is used in evaluation, and does not affect training.
    """
    plain = plain_states()
    averaged = states(optimizer={"ema": 0.15})[3]
    expected = plain[0].params
    for decay, state in zip((1 / 10, 0.15, 0.15), plain[1:], strict=True):
        expected = jax.tree.map(lambda e, w, d=decay: d * e + (1 - d) * w, expected, state.params)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)  # noqa: E731
    jax.tree.map(close, averaged.eval_variables["params"], expected)
    jax.tree.map(close, averaged.params, plain[3].params)
    jax.tree.map(np.testing.assert_array_equal, plain[3].eval_variables["params"], plain[3].params)


def test_lars_by_its_formula(double):
    """Kernels: rate t |w| / |g + d w|; other parameters: the plain rate (arXiv:1708.03888, eq. 6, algorithm 1)."""
    c = config.base().optimizer
    c.update(name="lars", weight_decay=0.05, momentum=0.0, trust_coefficient=0.02)
    built = optimizers.build(c, lambda step: 0.3)
    params = {"conv": {"kernel": jnp.array([3.0, -4.0])}, "bn": {"scale": jnp.array([1.5])}}
    gradients = {"conv": {"kernel": jnp.array([0.3, 0.1])}, "bn": {"scale": jnp.array([-0.2])}}
    updates, _ = built.update(gradients, built.init(params), params)
    new = optax.apply_updates(params, updates)
    decayed = np.array([0.3, 0.1]) + 0.05 * np.array([3.0, -4.0])
    rate = 0.3 * 0.02 * 5 / np.linalg.norm(decayed)
    np.testing.assert_allclose(new["conv"]["kernel"], np.array([3.0, -4.0]) - rate * decayed, rtol=1e-9)
    np.testing.assert_allclose(new["bn"]["scale"], 1.5 - 0.3 * (-0.2 + 0.05 * 1.5), rtol=1e-9)
