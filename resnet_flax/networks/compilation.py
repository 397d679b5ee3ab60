"""Compiler options for programs that contain these networks: ``jax.jit`` with the options that are fast on CPUs."""

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

# XLA options that make these networks fast on a CPU. An option is set if jaxlib knows it and the user has not set it.
_OPTIONS = {
    # YNNPACK computes matrix products and sums only. By default it computes convolutions, too, for which Eigen takes
    # little more than half the time with 32 channels or more (jaxlib 0.10; in 0.12 they are equally fast).
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE",
    # Results are read while they are still in the cache: a training step of ResNet-20 takes 0.96 of the time, with the
    # same bits.
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
}


# Lets oneDNN, the library that PyTorch uses, compute convolutions and large matrix products. jaxlib 0.12 contains it,
# 0.10 does not.
_ONEDNN = "xla_cpu_experimental_onednn_custom_call"
_traces_for_onednn: ContextVar[bool] = ContextVar("_traces_for_onednn", default=False)

# A run uses oneDNN if it trains on at least this many pixels: 2,048 steps of 128 images of 32x32. In such a run oneDNN
# saves one minute of eight. When the run is resumed, it has to compile its steps again, which takes 10 to 20 seconds.
_PIXELS_FOR_ONEDNN = 1 << 28


def jit(function: Callable[..., Any], platform: str | None = None, onednn: bool = False, **keys: Any) -> Any:
    """Calls ``jax.jit(function, **keys)`` with :func:`compiler_options`.

    Args:
      platform: Platform of the devices that run the program; by default jax's default backend.
      onednn: Whether oneDNN computes the operations that it supports. Such a program is not written to the persistent
        compilation cache.
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
    """Tells whether the function that is being traced will be compiled with oneDNN."""
    return _traces_for_onednn.get()


def onednn_pays(dtype: str, pixels: int) -> bool:
    """Tells whether a run should use oneDNN: it is available, ``dtype`` is float32, and the run is long enough.

    Args:
      dtype: Type of the computation (``model.dtype``).
      pixels: Number of pixels that the run trains on, over all its steps.
    """
    return dtype == "float32" and pixels >= _PIXELS_FOR_ONEDNN and has_onednn()


@cache
def has_onednn() -> bool:
    """Tells whether jax runs on a CPU, jaxlib contains oneDNN, and ``XLA_FLAGS`` does not set its option."""
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
    """A jitted, traced or lowered function whose compiled program jax does not write to its persistent cache.

    jaxlib cannot serialise a program that contains oneDNN: it takes it for a program of another kind, and fails or runs
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
    """Keeps jax from writing programs that are compiled in this context to its persistent cache."""
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    jax.config.update(name, math.inf)
    try:
        yield
    finally:
        jax.config.update(name, before)


@cache
def compiler_options(platform: str | None = None) -> dict[str, str] | None:
    """Returns the XLA options that make these networks fast, or None if there are none to set, as on a GPU.

    Args:
      platform: Platform of the devices that run the program; by default jax's default backend.
    """
    if (platform or jax.default_backend()) != "cpu":
        return None
    return {name: value for name, value in unset_by_user(_OPTIONS).items() if _is_known(name, value)} or None


def unset_by_user(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the given XLA options without those that the user has set in ``XLA_FLAGS``."""
    flags = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in options.items() if name not in flags}


def _is_known(name: str, value: str) -> bool:
    """Tells whether jaxlib accepts the option with this value."""
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
