"""What a run is made of at a step: all that has to be saved for it to go on with the same bits."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from resnet_flax.data.resident import stream_key
from resnet_flax.networks import Network
from resnet_flax.training.optimizer import evaluated


@flax.struct.dataclass
class Sums:
    """What training has shown since the last line of metrics.

    Attributes:
      loss: sum over images, of the global batch.
      errors: images classified wrongly, on the augmented stream with batch statistics.
      images: how many there were.
      first_bad_step: the first step whose loss was not finite, or -1.
    """

    loss: Array
    errors: Array
    images: Array
    first_bad_step: Array


@flax.struct.dataclass
class State:
    """A run at a step. No random key is among it: randomness is a function of the seed and the step."""

    step: Array  # int32: steps taken
    params: Any
    batch_stats: Any
    opt_state: Any
    sums: Sums

    @property
    def evaluated(self) -> dict[str, Any]:
        """What is evaluated: parameters (their moving average where one is kept) and BN's statistics."""
        return {"params": evaluated(self.params, self.opt_state), "batch_stats": self.batch_stats}


def no_sums(dtype: jnp.dtype) -> Sums:
    """Sums over nothing, on the host or as constants of a compiled function."""
    return Sums(
        loss=jnp.zeros((), dtype),
        errors=jnp.zeros((), jnp.int32),
        images=jnp.zeros((), jnp.int32),
        first_bad_step=jnp.full((), -1, jnp.int32),
    )


def initial_state(
    network: Network,
    optimizer: optax.GradientTransformation,
    seed: int,
    image_shape: tuple[int, int, int],
    sharding: jax.sharding.Sharding | None = None,
) -> State:
    """The state at step 0; parameters are drawn from the stream ``parameters`` of the seed.

    Args:
      network: built without an axis name, or with one: parameters do not depend on it.
      image_shape: (H, W, C).
      sharding: where every array goes; None for the default device.
    """
    # It runs once: on a CPU, all that LLVM could do for its random numbers takes seconds and changes no bit.
    options = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
    initialize = _initializer(network, optimizer, image_shape)
    # The seed is an argument, so that runs which differ in nothing else share a compiled program.
    return jax.jit(initialize, out_shardings=sharding, compiler_options=options)(np.uint32(seed))


def abstract_state(
    network: Network,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    sharding: jax.sharding.Sharding,
) -> State:
    """Shapes, dtypes and places of a state's arrays, and no arrays: what a checkpoint is restored as."""
    shapes = jax.eval_shape(_initializer(network, optimizer, image_shape), np.uint32(0))
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), shapes)


def _initializer(
    network: Network, optimizer: optax.GradientTransformation, image_shape: tuple[int, int, int]
) -> Callable[[Array], State]:
    # One device's view of the network: initialisation sees no batch that is split.
    alone = network.clone(layers=dataclasses.replace(network.layers, axis_name=None, bn_group=0))

    def init(seed: Array) -> State:
        dtype = network.layers.param_dtype
        variables = alone.init(stream_key(seed, "parameters"), jnp.zeros((1, *image_shape), dtype), train=False)
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        return State(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=batch_stats,
            opt_state=optimizer.init(params),
            sums=no_sums(jnp.promote_types(dtype, jnp.float32)),
        )

    return init
