"""The state of a run at a step: everything that a checkpoint must hold for a bit-exact resume."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import DTypeLike

from resnet_flax.data.transforms import stream_key
from resnet_flax.errors import UserError
from resnet_flax.networks import Network, on_one_device
from resnet_flax.networks.compilation import unset_by_user
from resnet_flax.training import metric_functions


@flax.struct.dataclass
class State:
    """The state of a run at a step. It holds no random key: randomness is a function of the seed and the step.

    Attributes:
      sums: Training metrics accumulated since the last line of metrics: ``loss``, summed over the images of the global
        batches; ``errors``, the number of misclassified images (augmented, with batch statistics); ``images``, the
        number of images; ``first_bad_step``, the first step whose loss was not finite, or -1; and the sums of the
        metrics in ``train.metrics``, over images or over steps.
      average: The moving average of ``params``; None if ``optimizer.ema`` is 0.
    """

    step: Array  # int32, number of steps taken
    params: Any
    batch_stats: Any
    opt_state: Any
    sums: dict[str, Any]
    average: Any = None

    @property
    def variables(self) -> dict[str, Any]:
        """The variables that training updates: ``params`` and ``batch_stats``."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def eval_variables(self) -> dict[str, Any]:
        """The variables for evaluation: like ``variables``, with the moving average as ``params`` if there is one."""
        return self.variables if self.average is None else {**self.variables, "params": self.average}

    @property
    def items(self) -> dict[str, Any]:
        """The fields by name, as saved in a checkpoint; ``average`` is left out if it is None."""
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: part for name, part in parts.items() if part is not None}


def restored(items: Mapping[str, Any], like: State) -> State:
    """Builds a state from the items of a checkpoint, in which some ``sums`` may be missing (None).

    A sum is missing if its metric was added to ``train.metrics`` later. It becomes 0 if the checkpoint was written
    right after a line of metrics. Otherwise it becomes NaN, because a part of the sum is unknown.

    Args:
      items: The fields of the state by name.
      like: The result of :func:`abstract_state`.

    Raises:
      UserError: The missing sum is an integer, which cannot be NaN.
    """
    images = items["sums"]["images"]
    between_lines = images is None or int(images) > 0

    def known(path: Any, found: Array | None, wanted: jax.ShapeDtypeStruct) -> Array:
        if found is not None:
            return found
        if between_lines and not jnp.issubdtype(wanted.dtype, jnp.floating):
            raise UserError(f"the checkpoint lacks sums{jax.tree_util.keystr(path)}, so the run cannot be resumed")
        fill = jnp.nan if between_lines else 0
        return jax.jit(lambda: jnp.full(wanted.shape, fill, wanted.dtype), out_shardings=wanted.sharding)()

    sums = jax.tree_util.tree_map_with_path(known, items["sums"], like.sums, is_leaf=lambda leaf: leaf is None)
    return State(**{**items, "sums": sums})


def zero_sums(dtype: jnp.dtype, params: Any = None, metrics: Sequence[str] = ()) -> dict[str, Any]:
    """Returns sums of metrics at zero.

    Args:
      dtype: The dtype of sums that are not counts.
      params: The network's parameters; needed if there are ``metrics``.
      metrics: The names in ``train.metrics``.
    """
    sums: dict[str, DTypeLike] = {"loss": dtype, "errors": jnp.int32, "images": jnp.int32}
    zeros = {name: jnp.zeros((), kind) for name, kind in sums.items()}
    for name in metrics:
        of_steps = metric_functions.OF_STEPS.get(name)
        like = jax.ShapeDtypeStruct((), dtype) if of_steps is None else jax.eval_shape(of_steps, *[params] * 3)
        metric_functions.check_of_steps(name, like)
        zeros[name] = jax.tree.map(lambda a: jnp.zeros(a.shape, dtype), like)
    return zeros | {"first_bad_step": jnp.full((), -1, jnp.int32)}


def initial_state(
    network: Network,
    optimizer: optax.GradientTransformation,
    seed: int,
    image_shape: tuple[int, int, int],
    sharding: jax.sharding.Sharding | None = None,
    ema: float = 0.0,
    weights: Mapping[str, Any] | None = None,
    metrics: Sequence[str] = (),
) -> State:
    """Returns the state at step 0, with parameters drawn from the random stream ``parameters`` of the seed.

    Args:
      network: The network, with or without an axis name; the parameters do not depend on it.
      image_shape: (H, W, C) of the network's input.
      sharding: The sharding of every array; None for the default device.
      ema: The final decay of the moving average of the parameters; 0 for no average.
      weights: Variables to start from; variables that are missing in it stay random.
      metrics: The names in ``train.metrics``.
    """
    draw, begin = _make_draw(network, image_shape), _make_begin(network, optimizer, ema, metrics)
    # The seed is an argument, so that runs that differ only in it share a compiled program.
    if weights is None:
        return _jit_once(lambda seed: begin(draw(seed)), sharding)(np.uint32(seed))
    # The average and the optimizer's state are derived from the parameters, so the weights have to be in place first.
    return _jit_once(begin, sharding)(initial_variables(network, seed, image_shape, sharding, weights))


def initial_variables(
    network: Network,
    seed: int,
    image_shape: tuple[int, int, int],
    sharding: jax.sharding.Sharding | None = None,
    weights: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns ``params`` and ``batch_stats`` at step 0; see :func:`initial_state` for the arguments."""
    drawn = _jit_once(_make_draw(network, image_shape), sharding)(np.uint32(seed))

    def put(path: Any, array: Array) -> Array:
        value: Any = weights
        for key in path:
            if key.key not in value:
                return array
            value = value[key.key]
        return jax.make_array_from_callback(array.shape, array.sharding, lambda index: np.asarray(value)[index])

    return drawn if weights is None else jax.tree_util.tree_map_with_path(put, drawn)


def abstract_state(
    network: Network,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    sharding: jax.sharding.Sharding,
    ema: float = 0.0,
    metrics: Sequence[str] = (),
) -> State:
    """Returns the shapes, dtypes and shardings of a state, for restoring a checkpoint; allocates nothing."""
    begin = _make_begin(network, optimizer, ema, metrics)
    return _abstract(lambda seed: begin(_make_draw(network, image_shape)(seed)), sharding)


def abstract_variables(
    network: Network, image_shape: tuple[int, int, int], sharding: jax.sharding.Sharding | None
) -> dict[str, Any]:
    """Returns the shapes, dtypes and shardings of ``params`` and ``batch_stats``; allocates nothing."""
    return _abstract(_make_draw(network, image_shape), sharding)


def _abstract(initialize: Callable[[Array], Any], sharding: jax.sharding.Sharding | None) -> Any:
    shapes = jax.eval_shape(initialize, np.uint32(0))
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), shapes)


def _jit_once(initialize: Callable[[Any], Any], sharding: jax.sharding.Sharding | None) -> Callable[[Any], Any]:
    """Jits a function that runs once; on a CPU with few optimizations, which would take seconds and change no bit."""
    options = unset_by_user({"xla_backend_optimization_level": 1}) if jax.default_backend() == "cpu" else None
    return jax.jit(initialize, out_shardings=sharding, compiler_options=options)


def _make_draw(network: Network, image_shape: tuple[int, int, int]) -> Callable[[Array], dict[str, Any]]:
    # Without the axis name: initialisation runs outside of shard_map.
    single = on_one_device(network)

    def draw(seed: Array) -> dict[str, Any]:
        images = jnp.zeros((1, *image_shape), network.layers.param_dtype)
        variables = single.init(stream_key(seed, "parameters"), images, train=False)
        return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}

    return draw


def _make_begin(
    network: Network, optimizer: optax.GradientTransformation, ema: float, metrics: Sequence[str]
) -> Callable[[dict[str, Any]], State]:
    def begin(variables: dict[str, Any]) -> State:
        params = variables["params"]
        return State(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=variables["batch_stats"],
            opt_state=optimizer.init(params),
            sums=zero_sums(jnp.promote_types(network.layers.param_dtype, jnp.float32), params, metrics),
            average=jax.tree.map(jnp.array, params) if ema else None,
        )

    return begin
