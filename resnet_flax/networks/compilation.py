"""How programs with our networks in them are compiled."""

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import jax

# Which parts of a program XLA gives to YNNPACK on a CPU: matrix products and sums. By default it gets convolutions too,
# which Eigen does in little more than half the time between 32 channels or more (jaxlib 0.10; in 0.12 they are alike).
_OPTION = "xla_cpu_experimental_ynn_fusion_type"
_PARTS = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"


def jit(function: Callable[..., Any], platform: str | None = None, **keys: Any) -> Any:
    """``jax.jit(function, **keys)`` with :func:`compiler_options`."""
    return jax.jit(function, compiler_options=compiler_options(platform), **keys)


@cache
def compiler_options(platform: str | None = None) -> dict[str, str] | None:
    """The options of XLA that our convolution is fast with, or None where there are none to set.

    On GPUs and TPUs, where the user has set the option in ``XLA_FLAGS``, or where this jaxlib does not know it.

    Args:
      platform: of the devices that the program is for; by default jax's own.
    """
    if (platform or jax.default_backend()) != "cpu" or _OPTION in os.environ.get("XLA_FLAGS", ""):
        return None
    options = {_OPTION: _PARTS}
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return options
