"""Tests that runs of every kind of network train, stop, resume bit for bit, and are evaluated."""

import jax
import numpy as np
import pytest

from resnet_flax.training import loop
from tests.commands import arrays, lines
from tests.marks import slow
from tests.training.small import small_config

KINDS = {
    "without normalisation": ("plain-8", dict(model__norm="none")),
    "with an average of the parameters": ("residual-8", dict(model__stage_units=(1,), optimizer__ema=0.99)),
    "pre-activation": ("preactivation-8", {}),
    "highway": ("highway-8", {}),
    "vgg, with dropout": ("vgg-11", dict(model__hidden=(24,))),
}
QUICK = ("without normalisation", "with an average of the parameters")


@pytest.mark.parametrize("kind", [k if k in QUICK else slow(k) for k in KINDS])
def test_a_run_stopped_half_way_resumes_bit_for_bit(kind, tmp_path):
    name, keys = KINDS[kind]
    keys = dict(train__steps=8, schedule__name="constant", optimizer__learning_rate=0.01) | keys
    once = loop.run(small_config(name, **keys), tmp_path / "once")
    loop.run(small_config(name, **keys | dict(train__steps=4)), tmp_path / "twice")
    again = loop.run(small_config(name, **keys), tmp_path / "twice")
    assert np.isfinite([once["train_loss"], once["test_loss"]]).all()
    assert (once["test_loss"], once["test_error"]) == (again["test_loss"], again["test_error"])
    assert lines(tmp_path / "once") == lines(tmp_path / "twice")
    a, b = (arrays(tmp_path / run, 8) for run in ("once", "twice"))
    jax.tree.map(np.testing.assert_array_equal, a, b)
