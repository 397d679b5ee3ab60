"""How programs with our networks in them are compiled."""

import contextlib
import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

# XLA's options that our networks are fast with on a CPU. Each is set where jaxlib knows it and the user has not set it.
_OPTIONS = {
    # YNNPACK gets matrix products and sums. By default it gets convolutions too, which Eigen does in little more than
    # half the time between 32 channels or more (jaxlib 0.10; in 0.12 they are alike).
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE",
    # What an operation writes is read while the cache still holds it: a training step of ResNet-20 takes 0.96 of the
    # time. No bit changes.
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
}


# Gives oneDNN, PyTorch's library, convolutions and large matrix products. jaxlib 0.12 has it inside; 0.10 has not.
_ONEDNN = "xla_cpu_experimental_onednn_custom_call"
_traces_for_onednn: ContextVar[bool] = ContextVar("_traces_for_onednn", default=False)

# A run uses oneDNN where it trains on at least so many pixels: 2,048 steps of 128 images of 32x32. There oneDNN saves a
# minute of eight, and a run that is restarted has to compile its steps again, which takes ten seconds, or twenty.
_PIXELS_FOR_ONEDNN = 1 << 28


def jit(function: Callable[..., Any], platform: str | None = None, onednn: bool = False, **keys: Any) -> Any:
    """``jax.jit(function, **keys)`` with :func:`compiler_options`.

    Args:
      platform: of the devices that the program is for; by default jax's own.
      onednn: whether oneDNN computes what it can. Such a program is not kept from one process to the next.
    """
    options = compiler_options(platform)
    if not onednn:
        return jax.jit(function, compiler_options=options, **keys)

    @functools.wraps(function)
    def traced(*arguments: Any) -> Any:
        token = _traces_for_onednn.set(True)
        try:
            return function(*arguments)
        finally:
            _traces_for_onednn.reset(token)

    return _Uncached(jax.jit(traced, compiler_options=(options or {}) | {_ONEDNN: True}, **keys))


def traces_for_onednn() -> bool:
    """Whether the function that is being traced will be compiled with oneDNN."""
    return _traces_for_onednn.get()


def onednn_pays(dtype: str, pixels: int) -> bool:
    """Whether a run is to use oneDNN: there is one, its numbers are float32, and it trains on so many pixels."""
    return dtype == "float32" and pixels >= _PIXELS_FOR_ONEDNN and has_onednn()


@cache
def has_onednn() -> bool:
    """Whether this jaxlib has oneDNN inside, on a CPU, and the user has not said in ``XLA_FLAGS`` whether to use it."""
    if jax.default_backend() != "cpu" or _ONEDNN in os.environ.get("XLA_FLAGS", ""):
        return False
    images, kernel = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, 8, 8, 8), (3, 3, 8, 8)))
    dimensions = ("NHWC", "HWIO", "NHWC")
    convolve = jit(
        lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=dimensions), onednn=True
    )
    return "__onednn$convolution" in convolve.lower(images, kernel).compile().as_text()


@dataclasses.dataclass(frozen=True)
class _Uncached:
    """A jitted, traced or lowered function whose compiled program jax does not put into its persistent cache.

    jaxlib cannot write a program with oneDNN in it: it reads it as one of another kind, and where that goes well, runs
    out of memory.
    """

    stage: Any

    def __call__(self, *arguments: Any) -> Any:
        with _cache_disabled():
            return self.stage(*arguments)

    def trace(self, *arguments: Any) -> "_Uncached":
        return _Uncached(self.stage.trace(*arguments))

    def lower(self, *arguments: Any, **keys: Any) -> "_Uncached":
        return _Uncached(self.stage.lower(*arguments, **keys))

    def as_text(self) -> str:
        return self.stage.as_text()

    def compile(self) -> jax.stages.Compiled:
        with _cache_disabled():
            return self.stage.compile()


@contextlib.contextmanager
def _cache_disabled() -> Iterator[None]:
    """Keeps jax from writing what is compiled meanwhile into its persistent cache."""
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    jax.config.update(name, math.inf)
    try:
        yield
    finally:
        jax.config.update(name, before)


@cache
def compiler_options(platform: str | None = None) -> dict[str, str] | None:
    """Returns the options of XLA that our networks are fast with, or None where there are none to set, as on a GPU.

    Args:
      platform: of the devices that the program is for; by default jax's own.
    """
    if (platform or jax.default_backend()) != "cpu":
        return None
    return {name: value for name, value in unset_by_user(_OPTIONS).items() if _is_known(name, value)} or None


def unset_by_user(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those of XLA's options that the user has not set in ``XLA_FLAGS``."""
    flags = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in options.items() if name not in flags}


def _is_known(name: str, value: str) -> bool:
    """Whether this jaxlib has such an option."""
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
