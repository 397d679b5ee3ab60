"""Tests optimizers against their update rules, written out in NumPy."""

import inspect

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from resnet_flax import config, memory
from resnet_flax.errors import UserError
from resnet_flax.networks import build
from resnet_flax.training import optimizer as optimizers
from tests.pages import block

PARAMS = {"conv": {"kernel": np.array([1.0, -2.0])}, "bn": {"scale": np.array([1.5]), "bias": np.array([0.5])}}
GRADIENTS = [
    {"conv": {"kernel": np.array([0.3, 0.1]) * k}, "bn": {"scale": np.array([-0.2]), "bias": np.array([0.4]) * k}}
    for k in (1.0, -2.0, 0.5)
]


def run(rate, **keys):
    c = config.base().optimizer
    c.update(keys)
    optimizer = optimizers.build(c, rate)
    params = {layer: {k: jnp.asarray(v) for k, v in leaves.items()} for layer, leaves in PARAMS.items()}
    state = optimizer.init(params)
    for gradients in GRADIENTS:
        updates, state = optimizer.update(gradients, state, params)
        params = {a: {b: params[a][b] + updates[a][b] for b in params[a]} for a in params}
    return params


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", ["all", "kernels"])
def test_sgd_with_momentum_and_coupled_decay(double, nesterov, decay):
    """v = m v + (g + wd w); w -= lr v. The rate stays outside the buffer, as in PyTorch."""

    def rate(step):
        return jnp.where(step < 2, 0.1, 0.01)

    ours = run(rate, weight_decay=0.05, nesterov=nesterov, decay=decay)
    for layer, leaves in PARAMS.items():
        for name, w in leaves.items():
            v, w = np.zeros_like(w), w.copy()
            for step, gradients in enumerate(GRADIENTS):
                g = gradients[layer][name] + (0.05 * w if decay == "all" or name == "kernel" else 0)
                v = 0.9 * v + g
                w = w - (0.1 if step < 2 else 0.01) * (g + 0.9 * v if nesterov else v)
            np.testing.assert_allclose(ours[layer][name], w, rtol=1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_of_the_update(double, nesterov):
    """v = m v + lr (g + wd w); w -= v. The rate goes into the buffer, as in Caffe."""

    def rate(step):
        return jnp.where(step < 2, 0.1, 0.01)

    ours = run(rate, weight_decay=0.05, momentum_form="update", nesterov=nesterov)
    theirs = run(rate, weight_decay=0.05, nesterov=nesterov)
    for layer, leaves in PARAMS.items():
        for name, w in leaves.items():
            v, w = np.zeros_like(w), w.copy()
            for step, gradients in enumerate(GRADIENTS):
                u = (0.1 if step < 2 else 0.01) * (gradients[layer][name] + 0.05 * w)
                v = 0.9 * v + u
                w = w - (u + 0.9 * v if nesterov else v)
            np.testing.assert_allclose(ours[layer][name], w, rtol=1e-12)
            assert not np.allclose(theirs[layer][name], w, rtol=1e-6)


def test_adamw(double):
    """Compared with algorithm 2 of Loshchilov & Hutter (arXiv:1711.05101)."""
    ours = run(lambda step: 0.1, name="adamw", weight_decay=0.05, decay="kernels")
    for layer, leaves in PARAMS.items():
        for name, w in leaves.items():
            m, v, w = np.zeros_like(w), np.zeros_like(w), w.copy()
            for t, gradients in enumerate(GRADIENTS, start=1):
                g = gradients[layer][name]
                m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
                update = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
                w = w - 0.1 * (update + (0.05 * w if name == "kernel" else 0))
            np.testing.assert_allclose(ours[layer][name], w, rtol=1e-9)


def lion(optimizer, rate, decays):
    """The sign of an average of gradients (arXiv:2302.06675); ``decays`` says which parameters decay."""
    betas = optimizer["beta1"], optimizer["beta2"]
    return optax.lion(rate, *betas, weight_decay=optimizer["weight_decay"], mask=decays)


def test_a_user_can_register_an_optimizer(double, monkeypatch):
    """Uses the example in docs/extending.md. Lion takes its step before it updates the average (algorithm 2)."""
    c = config.base()
    c.optimizer.name = "lion"
    with pytest.raises(UserError, match="optimizer.name='lion' is not known; choose one of sgd, adamw, lars"):
        config.validate(c)
    monkeypatch.setitem(optimizers.OPTIMIZERS, "lion", lion)
    config.validate(c)
    memory.check_training(c, build(c.model, classes=10))
    ours = run(0.01, name="lion", beta1=0.9, beta2=0.99, weight_decay=0.1)["conv"]["kernel"]
    w, m = PARAMS["conv"]["kernel"].copy(), np.zeros(2)
    for gradients in GRADIENTS:
        g = gradients["conv"]["kernel"]
        w -= 0.01 * (np.sign(0.9 * m + 0.1 * g) + 0.1 * w)
        m = 0.99 * m + 0.01 * g
    np.testing.assert_allclose(ours, w, rtol=1e-12)
    shown = block("def lion")
    assert inspect.getsource(lion) in shown
    assert 'OPTIMIZERS["lion"] = lion' in shown
