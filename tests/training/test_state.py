"""Tests of restoring a state from a checkpoint without some metrics, and of drawing parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_flax.errors import UserError
from resnet_flax.networks import build
from resnet_flax.training.devices import data_mesh, replicated
from resnet_flax.training.state import State, initial_variables, restored, zero_sums
from tests.training.small import small_config


@pytest.mark.parametrize(("images", "expected"), [(0, 0), (7, np.nan)])
def test_a_missing_sum_becomes_nan_or_zero(images, expected):
    """Right after a line it is zero, as nothing has been summed; otherwise NaN, which is null in the next line."""
    state = jax.device_put(
        State(jnp.int32(3), {}, {}, (), zero_sums(jnp.float32) | {"images": jnp.int32(images)}), replicated(data_mesh())
    )
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), state)
    found = restored(state.items | {"sums": {**state.sums, "loss": None}}, like)
    np.testing.assert_array_equal(found.sums["loss"], np.float32(expected))
    assert found.sums["loss"].sharding.is_fully_replicated
    assert int(found.sums["images"]) == images
    lacking = state.items | {"sums": {**state.sums, "errors": None}}
    if images:
        with pytest.raises(UserError, match=r"lacks sums\['errors'\], so the run cannot be resumed"):
            restored(lacking, like)
    else:
        assert int(restored(lacking, like).sums["errors"]) == 0


@pytest.mark.parametrize(("flags", "level"), [("", 1), ("--xla_backend_optimization_level=0", None)])
def test_the_program_that_draws_parameters_is_compiled_quickly_unless_the_user_sets_a_level(monkeypatch, flags, level):
    options, jit = [], jax.jit
    monkeypatch.setattr(
        jax, "jit", lambda f, compiler_options=None, **keys: options.append(compiler_options) or jit(f, **keys)
    )
    monkeypatch.setenv("XLA_FLAGS", flags)
    network = build(small_config(model__stage_units=(1,)).model, classes=2)
    jax.eval_shape(lambda: initial_variables(network, 0, (8, 8, 1)))
    assert [o for o in options if o is not None] == [{"xla_backend_optimization_level": level} if level else {}]
