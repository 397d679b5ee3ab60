"""A new unit needs one class and one line, as docs/extending.md shows."""

import inspect

import flax.linen as nn
import jax
import numpy as np

from resnet_flax.networks.units import UNITS, Unit
from resnet_flax.training import loop
from tests.networks.small import images_and_labels, network, variables_of
from tests.pages import block
from tests.training.small import small_config


class ScaledUnit(Unit):
    """``y = relu(F(x) / 10 + shortcut(x))``."""

    @nn.compact
    def __call__(self, x, train):
        return nn.relu(0.1 * self.branch(x, train) + self.shortcut(x, train))


def test_it_trains_like_any_other(monkeypatch, tmp_path):
    monkeypatch.setitem(UNITS, "scaled", ScaledUnit)
    c = small_config(
        "scaled-8", model__width=1.0, optimizer__learning_rate=0.1, train__steps=60, schedule__name="constant"
    )
    c.train.log_every = c.train.eval_every = c.train.checkpoint_every = 60
    assert loop.run(c, tmp_path)["test_error"] < 0.6  # chance is 0.9


def test_its_layers_have_probes(monkeypatch, double):
    """Statistics, responses and the gradients with respect to them are available in a scanned stage."""
    monkeypatch.setitem(UNITS, "scaled", ScaledUnit)
    net = network("scaled")
    x, _ = images_and_labels()
    variables = variables_of(net, x)
    _, seen = net.apply(variables, x, True, mutable=["batch_stats", "responses", "perturbations"])
    rest = {name: found["stage1"]["rest"] for name, found in seen.items()}
    assert rest["batch_stats"]["bn2"]["mean"].shape == (2, 8)
    deviations = rest["responses"]["response2"]["deviation"]
    assert deviations.shape == (2,)
    assert (np.asarray(deviations) > 0).all()
    loss = lambda p: net.apply({**variables, "perturbations": p}, x).sum()  # noqa: E731
    gradient = jax.jit(jax.grad(loss))(seen["perturbations"])["stage1"]["rest"]["response2"]["response"]
    assert gradient.shape == (2, 8, 8, 8, 8)
    assert float(np.abs(gradient).max()) > 0


def test_the_documentation_shows_this_unit():
    """docs/extending.md contains the unit of this file, line for line."""
    shown = block("class ScaledUnit")
    assert inspect.getsource(ScaledUnit) in shown
    assert 'UNITS["scaled"] = ScaledUnit' in shown
