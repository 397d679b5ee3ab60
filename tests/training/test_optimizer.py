"""Optimizers against their update rules, written out."""

import jax.numpy as jnp
import numpy as np
import pytest

from resnet_flax import config
from resnet_flax.training import optimizer as optimizers

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
    """Loshchilov & Hutter (arXiv:1711.05101), algorithm 2."""
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
