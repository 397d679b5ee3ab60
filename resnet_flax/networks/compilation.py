"""How programs with our networks in them are compiled."""

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import jax

# XLA's options that our networks are fast with on a CPU. Each is set where jaxlib knows it and the user has not set it.
_OPTIONS = {
    # YNNPACK gets matrix products and sums. By default it gets convolutions too, which Eigen does in little more than
    # half the time between 32 channels or more (jaxlib 0.10; in 0.12 they are alike).
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE",
    # What an operation writes is read while the cache still holds it: a training step of ResNet-20 takes 0.96 of the
    # time. No bit changes.
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
}


def jit(function: Callable[..., Any], platform: str | None = None, **keys: Any) -> Any:
    """``jax.jit(function, **keys)`` with :func:`compiler_options`."""
    return jax.jit(function, compiler_options=compiler_options(platform), **keys)


@cache
def compiler_options(platform: str | None = None) -> dict[str, str] | None:
    """Returns the options of XLA that our networks are fast with, or None where there are none to set, as on a GPU.

    Args:
      platform: of the devices that the program is for; by default jax's own.
    """
    if (platform or jax.default_backend()) != "cpu":
        return None
    flags = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in _OPTIONS.items() if name not in flags and _is_known(name, value)} or None


def _is_known(name: str, value: str) -> bool:
    """Whether this jaxlib has such an option."""
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
