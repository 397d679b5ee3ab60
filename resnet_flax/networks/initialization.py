"""How weights are drawn: the paper's initialisation and the ones it is compared with."""

from collections.abc import Callable

import jax
from jax import Array
from jax.nn import initializers

Initializer = Callable[..., Array]

# The paper's is He's (arXiv:1502.01852, eq. 10): a normal distribution of variance 2 / fan_in, not truncated
# (jax's `he_normal` is truncated). Flax's own default is lecun_normal.
INITIALIZATIONS: dict[str, Initializer] = {
    "he": initializers.variance_scaling(2.0, "fan_in", "normal"),
    "he_fan_out": initializers.variance_scaling(2.0, "fan_out", "normal"),
    "lecun": initializers.variance_scaling(1.0, "fan_in", "normal"),
    "glorot": initializers.variance_scaling(1.0, "fan_avg", "normal"),
    "orthogonal": initializers.orthogonal(),
}


def initializer(name: str) -> Initializer:
    """The initializer of that name: ``(key, shape, dtype) -> array``; ValueError lists the names."""
    if name not in INITIALIZATIONS:
        raise ValueError(f"model.initialization={name!r} is not known; choose one of {', '.join(INITIALIZATIONS)}")
    return INITIALIZATIONS[name]


def ones(key: jax.Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike) -> Array:
    """Scale of a batch normalisation at the start."""
    return initializers.ones(key, shape, dtype)


def zeros(key: jax.Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike) -> Array:
    """Shifts and biases at the start; also the last scale of a unit, where that setting is on."""
    return initializers.zeros(key, shape, dtype)
