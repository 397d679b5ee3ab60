"""Tests that an evaluation counts every image exactly once."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from resnet_flax import config
from resnet_flax.data import layouts, pixels
from resnet_flax.data.images import Images
from resnet_flax.data.transforms import Transform
from resnet_flax.networks import build
from resnet_flax.training.devices import DATA_AXIS, data_mesh, replicated
from resnet_flax.training.evaluation import Evaluation, make_evaluate


@pytest.fixture(scope="module")
def example():
    rng = np.random.default_rng(0)
    data = Images(rng.integers(0, 256, (53, 8, 8, 1), np.uint8), rng.integers(0, 10, 53).astype(np.int32))
    c = config.base()
    c.model.update(depth=8, width=0.25)
    network = build(c.model, 10, axis_name=DATA_AXIS)
    normalization = pixels.normalization("pixel_mean", data)
    variables = jax.jit(lambda k, x: build(c.model, 10).init(k, x))(jax.random.key(0), jnp.ones((1, 8, 8, 1)))
    logits = jax.jit(lambda v, x: build(c.model, 10).apply(v, x))(
        variables, normalization(jnp.asarray(data.images), jnp.float32)
    )
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, data.labels).mean()
    return data, network, normalization, variables, float(loss), int((logits.argmax(-1) != data.labels).sum())


@pytest.mark.parametrize("batch_size", [1, 7, 53, 500])
def test_the_result_does_not_depend_on_the_batch_size(example, batch_size):
    """The number of images, 53, is a prime, so no batch on 8 devices divides it."""
    data, network, normalization, variables, loss, errors = example
    mesh = data_mesh()
    assert mesh.size == 8
    layout = layouts.ordered(layouts.rounded_up(batch_size, mesh))
    evaluate = make_evaluate(network, layout, Transform(normalization, jnp.float32), batch_size, mesh)
    result = evaluate(variables, [layouts.put(data, replicated(mesh))])
    assert (result.errors, result.images) == (errors, 53)
    assert result.loss == pytest.approx(loss, rel=1e-5)


def test_an_evaluation_is_printed_with_error_and_loss():
    assert str(Evaluation({"loss": 3012.3, "error": 827}, 10_000)) == "error 8.27% (827 of 10000), loss 0.3012"
