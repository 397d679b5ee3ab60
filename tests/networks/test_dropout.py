"""Dropout: the fraction that it drops, and masks that depend only on each example's key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_flax import config
from resnet_flax.errors import UserError
from resnet_flax.networks.dropout import dropout
from tests.networks.small import images_and_labels, network, variables_of


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_fraction_dropped(rate):
    """The fraction is within four standard deviations of a binomial's mean; scaling of the rest preserves the mean."""
    x = jnp.ones((200, 500))
    y = np.asarray(dropout(x, rate, keys(200), 0))
    deviation = np.sqrt(rate * (1 - rate) / y.size)
    assert abs((y == 0).mean() - rate) < 4 * deviation
    np.testing.assert_allclose(y[y != 0], 1 / (1 - rate), rtol=1e-6)
    # Examples, features and dropout layers are dropped independently of one another.
    assert len({row.tobytes() for row in y}) == 200
    assert abs(np.corrcoef(y.ravel(), np.asarray(dropout(x, rate, keys(200), 1)).ravel())[0, 1]) < 0.02


def test_a_mask_depends_only_on_the_examples_key():
    """Other examples, the place in the batch and 64-bit types do not change a mask."""
    x, k = jnp.ones((8, 40)), keys(8)
    whole = dropout(x, 0.5, k, 0)
    np.testing.assert_array_equal(dropout(x[3:5], 0.5, k[3:5], 0), whole[3:5])
    np.testing.assert_array_equal(dropout(x, 0.5, k[::-1], 0), whole[::-1])
    with jax.enable_x64(True):
        np.testing.assert_array_equal(dropout(x, 0.5, keys(8), 0), whole)


@pytest.mark.parametrize("hidden", [(), (64, 64)])
def test_where_a_network_drops(double, hidden):
    """A network drops features after each hidden layer, or without hidden layers after pooling; only in training."""
    x, _ = images_and_labels()
    net, without = (network("residual", stage_units=(1,), hidden=hidden, dropout=rate) for rate in (0.5, 0.0))
    variables = variables_of(net, x)

    def logits(net, train, **given):
        return net.apply(variables, x, train, mutable=["batch_stats"], **given)[0]

    np.testing.assert_array_equal(logits(net, False), logits(without, False))
    np.testing.assert_array_equal(logits(net, False, dropout_keys=keys(8)), logits(without, False))
    _, named = net.apply(variables, x, True, True, keys(8), mutable=["batch_stats"])[0]
    y, p = named["pooled"], variables["params"]
    if not hidden:
        y = dropout(y, 0.5, keys(8), 0)
    for i in range(1, len(hidden) + 1):
        y = dropout(jax.nn.relu(y @ p[f"hidden{i}"]["kernel"] + p[f"hidden{i}"]["bias"]), 0.5, keys(8), i)
    np.testing.assert_allclose(named["logits"], y @ p["dense"]["kernel"] + p["dense"]["bias"], rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="training needs dropout_keys"):
        logits(net, True)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5])
def test_a_rate_that_drops_everything_or_less_than_nothing_is_refused(rate):
    c = config.base()
    c.model.dropout = rate
    with pytest.raises(UserError, match=r"model.dropout=.* must be in \[0, 1\)"):
        config.validate(c)
