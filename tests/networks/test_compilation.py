"""Which library computes what on a CPU, and whose word counts."""

import jax.numpy as jnp
import pytest

from resnet_flax.networks import compilation
from resnet_flax.networks.convolution import convolution


@pytest.fixture(autouse=True)
def asked_anew():
    compilation.compiler_options.cache_clear()
    yield
    compilation.compiler_options.cache_clear()


def test_convolutions_are_not_for_ynnpack():
    images, kernel = jnp.ones((8, 16, 16, 32)), jnp.ones((3, 3, 32, 32))
    assert compilation.compiler_options() is not None
    compiled = compilation.jit(convolution, static_argnums=2).lower(images, kernel, 1).compile().as_text()
    assert "} convolution(" in compiled
    assert "ynn_fusion" not in compiled


def test_what_the_user_has_set_stays(monkeypatch):
    ours = set(compilation.compiler_options())
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_DEFAULT")
    compilation.compiler_options.cache_clear()
    assert set(compilation.compiler_options()) == ours - {"xla_cpu_scheduler_type"}


def test_an_option_that_jaxlib_does_not_know_is_left_out(monkeypatch):
    ours = compilation.compiler_options()
    monkeypatch.setattr(compilation, "_OPTIONS", ours | {"xla_cpu_no_such_option": "1"})
    compilation.compiler_options.cache_clear()
    assert compilation.compiler_options() == ours
    assert compilation.jit(lambda x: x + 1)(1) == 2
