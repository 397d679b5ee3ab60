"""Initializers of weights: the paper's, and those it is compared with."""

from collections.abc import Callable

from jax import Array
from jax.nn import initializers

from resnet_flax.registry import Registry

Initializer = Callable[..., Array]

# The paper uses "he" (arXiv:1502.01852, eq. 10): a normal distribution of variance 2 / fan_in, which is not truncated
# (jax's `he_normal` is). Flax's default is lecun_normal.
INITIALIZATIONS: Registry[Initializer] = Registry(
    "initialization",
    {
        "he": initializers.variance_scaling(2.0, "fan_in", "normal"),
        "he_fan_out": initializers.variance_scaling(2.0, "fan_out", "normal"),
        "lecun": initializers.variance_scaling(1.0, "fan_in", "normal"),
        "glorot": initializers.variance_scaling(1.0, "fan_avg", "normal"),
        "orthogonal": initializers.orthogonal(),
    },
)


def initializer(name: str) -> Initializer:
    """Returns the initializer of the given name, a function ``(key, shape, dtype) -> array``.

    Raises:
      ValueError: The name is unknown. The message lists all names.
    """
    if name not in INITIALIZATIONS:
        raise ValueError(f"model.initialization={name!r} is not known; choose one of {', '.join(INITIALIZATIONS)}")
    return INITIALIZATIONS[name]
