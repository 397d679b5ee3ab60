"""A new unit needs one class and one line, as docs/extending.md shows."""

import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


class DrawingUnit(Unit):
    """Gives its draw to a probe: [N, H, W, 2] with 1 in the first channel and the draw in the second."""

    is_random = True

    @nn.compact
    def __call__(self, x, train):
        draw = jax.random.uniform(self.make_rng("unit"))
        seen = jnp.stack([jnp.zeros(x.shape[:3]), jnp.broadcast_to(draw, x.shape[:3])], -1)
        self.layers.probe(name="draw")(seen)
        return self.branch(x, train) + self.shortcut(x, train)


@pytest.mark.parametrize("unroll", [False, True])
def test_each_unit_draws_another_number(monkeypatch, double, unroll):
    """The deviation of equally many zeros and draws is half a draw."""
    monkeypatch.setitem(UNITS, "drawing", DrawingUnit)
    net = network("drawing", unroll=unroll)
    x, _ = images_and_labels()
    keys = {"params": jax.random.key(0), "unit": jax.random.key(1)}
    variables = net.init(keys, x, True)

    def draws(seed):
        key = {"unit": jax.random.key(seed)}
        _, seen = net.apply(variables, x, True, mutable=["batch_stats", "responses"], rngs=key)
        return [2 * seen["responses"][stage][part]["draw"]["deviation"]
                for stage in ("stage1", "stage2") for part in ("first", "rest")]  # fmt: skip

    drawn = np.concatenate([np.ravel(found) for found in draws(1) + draws(2)])
    assert len(set(np.round(drawn, 5))) == len(drawn) == 2 * (3 + 2)
    assert ((drawn > 0) & (drawn < 1)).all()


class StochasticUnit(Unit):
    """``y = relu(b F(x) / 0.8 + shortcut(x))`` with b = 1 or 0 in training, and ``b = 0.8`` otherwise."""

    is_random = True

    @nn.compact
    def __call__(self, x, train):
        branch = self.branch(x, train)
        if self.has_rng("unit"):
            kept = jax.random.bernoulli(self.make_rng("unit"), 0.8)
            branch = kept * branch / 0.8
        return nn.relu(branch + self.shortcut(x, train))


@pytest.mark.parametrize("unit", [ScaledUnit, StochasticUnit])
def test_the_documentation_shows_these_units(unit):
    """docs/extending.md contains the units of this file, line for line."""
    shown = block(f"class {unit.__name__}")
    assert inspect.getsource(unit) in shown
    assert f'UNITS["{unit.__name__.removesuffix("Unit").lower()}"] = {unit.__name__}' in shown
