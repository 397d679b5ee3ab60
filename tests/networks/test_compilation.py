"""The compiler options: which library computes which operations on a CPU, and options that the user has set."""

import jax
import jax.numpy as jnp
import pytest

from resnet_flax.networks import compilation
from resnet_flax.networks.convolution import convolution
from tests.marks import with_onednn


@pytest.fixture(autouse=True)
def without_cached_options():
    compilation.compiler_options.cache_clear()
    compilation.has_onednn.cache_clear()
    yield
    compilation.compiler_options.cache_clear()
    compilation.has_onednn.cache_clear()


def test_ynnpack_does_not_compute_convolutions():
    images, kernel = jnp.ones((8, 16, 16, 32)), jnp.ones((3, 3, 32, 32))
    assert compilation.compiler_options() is not None
    compiled = compilation.jit(convolution, static_argnums=2).lower(images, kernel, 1).compile().as_text()
    assert "} convolution(" in compiled
    assert "ynn_fusion" not in compiled


def test_options_that_the_user_has_set_are_not_overridden(monkeypatch):
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


@with_onednn
def test_onednn_computes_the_convolutions_of_a_program_that_asks_for_it():
    images, kernel = jnp.ones((8, 16, 16, 16)), jnp.ones((3, 3, 16, 16))
    for asked in (True, False):
        program = compilation.jit(lambda x, k: convolution(x, k, 1), onednn=asked).lower(images, kernel).compile()
        assert ("__onednn$convolution" in program.as_text()) == asked


@with_onednn
@pytest.mark.parametrize("called", [True, False])
def test_a_program_with_onednn_is_not_written_to_the_cache(tmp_path, monkeypatch, called):
    """jaxlib cannot write such a program (std::bad_alloc). Programs compiled after it are cached as before."""
    images, kernel, written = jnp.ones((2, 8, 8, 8)), jnp.ones((3, 3, 8, 8)), []
    monkeypatch.setattr(
        jax._src.compilation_cache, "put_executable_and_time", lambda key, name, *rest: written.append(name)
    )

    def not_kept(x, k):
        return convolution(x, k, 1) + called

    def kept(x):
        return x + 12345 + called

    jitted = compilation.jit(not_kept, onednn=True)
    jitted(images, kernel) if called else jitted.lower(images, kernel).compile()
    compilation.jit(kept).lower(images).compile()
    assert written == ["jit_kept"]


def test_onednn_is_used_for_long_runs_in_float32(monkeypatch):
    monkeypatch.setattr(compilation, "has_onednn", lambda: True)
    image = 128 * 32 * 32
    assert not compilation.onednn_pays("float32", 2000 * image)
    assert compilation.onednn_pays("float32", 64_000 * image)
    assert not compilation.onednn_pays("bfloat16", 64_000 * image)


def test_the_user_can_disable_onednn(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_experimental_onednn_custom_call=false")
    assert not compilation.has_onednn()
