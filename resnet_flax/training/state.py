"""The state of a run at a step: all that has to be saved for a resume with the same bits."""

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
from resnet_flax.networks import Network
from resnet_flax.networks.compilation import unset_by_user
from resnet_flax.training import metric_functions


@flax.struct.dataclass
class State:
    """A run at a step. No random key is among it: randomness is a function of the seed and the step.

    Attributes:
      sums: what training has shown since the last line of metrics: ``loss``, summed over images of the global batch;
        ``errors``, images classified wrongly, on the augmented stream with batch statistics; ``images``, how many there
        were; ``first_bad_step``, the first step whose loss was not finite, or -1; and the sums of the metrics in
        ``train.metrics``, over images or over steps.
      average: the moving average of ``params``, beside them: None where ``optimizer.ema`` is 0.
    """

    step: Array  # int32: steps taken
    params: Any
    batch_stats: Any
    opt_state: Any
    sums: dict[str, Any]
    average: Any = None

    @property
    def variables(self) -> dict[str, Any]:
        """The network's variables as training has left them: ``params`` and ``batch_stats``."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def eval_variables(self) -> dict[str, Any]:
        """The variables that are evaluated: the moving average in place of ``params`` where one is kept."""
        return self.variables if self.average is None else {**self.variables, "params": self.average}

    @property
    def items(self) -> dict[str, Any]:
        """The parts by name, as a checkpoint holds them; without the average where there is none."""
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: part for name, part in parts.items() if part is not None}


def restored(items: Mapping[str, Any], like: State) -> State:
    """The state of a checkpoint's items, of which ``sums`` may lack some: None for each.

    A metric that was not measured since the last line is unknown until the next one: NaN, or zero right after a line.

    Args:
      like: of :func:`abstract_state`.

    Raises:
      UserError: what is lacking is a whole number, which cannot be NaN.
    """
    images = items["sums"]["images"]
    between_lines = images is None or int(images) > 0

    def known(path: Any, found: Array | None, wanted: jax.ShapeDtypeStruct) -> Array:
        if found is not None:
            return found
        if between_lines and not jnp.issubdtype(wanted.dtype, jnp.floating):
            raise UserError(f"the checkpoint lacks sums{jax.tree_util.keystr(path)}; so the run cannot be resumed")
        fill = jnp.nan if between_lines else 0
        return jax.jit(lambda: jnp.full(wanted.shape, fill, wanted.dtype), out_shardings=wanted.sharding)()

    sums = jax.tree_util.tree_map_with_path(known, items["sums"], like.sums, is_leaf=lambda leaf: leaf is None)
    return State(**{**items, "sums": sums})


def no_sums(dtype: jnp.dtype, params: Any = None, metrics: Sequence[str] = ()) -> dict[str, Any]:
    """Sums over nothing, on the host or as constants of a compiled function.

    Args:
      dtype: of sums that are no whole numbers.
      params: of the network, where there are ``metrics``: names of ``train.metrics``.
    """
    sums: dict[str, DTypeLike] = {"loss": dtype, "errors": jnp.int32, "images": jnp.int32}
    zeros = {name: jnp.zeros((), kind) for name, kind in sums.items()}
    for name in metrics:
        of_steps = metric_functions.OF_STEPS.get(name)
        like = jax.ShapeDtypeStruct((), dtype) if of_steps is None else jax.eval_shape(of_steps, *[params] * 3)
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
    """The state at step 0; parameters are drawn from the stream ``parameters`` of the seed.

    Args:
      network: built without an axis name, or with one: parameters do not depend on it.
      image_shape: (H, W, C).
      sharding: where every array goes; None for the default device.
      ema: whether a moving average of the parameters is kept: 0 for none.
      weights: variables to start from; what they lack stays as it was drawn.
      metrics: of :func:`no_sums`.
    """
    draw, begin = _drawer(network, image_shape), _beginner(network, optimizer, ema, metrics)
    # The seed is an argument, so that runs which differ in nothing else share a compiled program.
    if weights is None:
        return _once(lambda seed: begin(draw(seed)), sharding)(np.uint32(seed))
    # The average and the optimizer's state are derived from the parameters, so these have to be final before.
    return _once(begin, sharding)(initial_variables(network, seed, image_shape, sharding, weights))


def initial_variables(
    network: Network,
    seed: int,
    image_shape: tuple[int, int, int],
    sharding: jax.sharding.Sharding | None = None,
    weights: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The network's ``params`` and ``batch_stats`` at step 0; arguments as of :func:`initial_state`."""
    drawn = _once(_drawer(network, image_shape), sharding)(np.uint32(seed))

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
    """Shapes, dtypes and places of a state's arrays, and no arrays: what a checkpoint is restored as."""
    begin = _beginner(network, optimizer, ema, metrics)
    return _abstract(lambda seed: begin(_drawer(network, image_shape)(seed)), sharding)


def abstract_variables(
    network: Network, image_shape: tuple[int, int, int], sharding: jax.sharding.Sharding | None
) -> dict[str, Any]:
    """Shapes, dtypes and places of ``params`` and ``batch_stats``, and no arrays."""
    return _abstract(_drawer(network, image_shape), sharding)


def _abstract(initialize: Callable[[Array], Any], sharding: jax.sharding.Sharding | None) -> Any:
    shapes = jax.eval_shape(initialize, np.uint32(0))
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), shapes)


def _once(initialize: Callable[[Any], Any], sharding: jax.sharding.Sharding | None) -> Callable[[Any], Any]:
    """Compiles what runs once: on a CPU, all that LLVM could do for random numbers takes seconds and changes no bit."""
    options = unset_by_user({"xla_backend_optimization_level": 1}) if jax.default_backend() == "cpu" else None
    return jax.jit(initialize, out_shardings=sharding, compiler_options=options)


def _drawer(network: Network, image_shape: tuple[int, int, int]) -> Callable[[Array], dict[str, Any]]:
    # One device's view of the network: initialisation sees no batch that is split.
    alone = network.clone(layers=dataclasses.replace(network.layers, axis_name=None, bn_group=0))

    def draw(seed: Array) -> dict[str, Any]:
        images = jnp.zeros((1, *image_shape), network.layers.param_dtype)
        variables = alone.init(stream_key(seed, "parameters"), images, train=False)
        return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}

    return draw


def _beginner(
    network: Network, optimizer: optax.GradientTransformation, ema: float, metrics: Sequence[str]
) -> Callable[[dict[str, Any]], State]:
    def begin(variables: dict[str, Any]) -> State:
        params = variables["params"]
        return State(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=variables["batch_stats"],
            opt_state=optimizer.init(params),
            sums=no_sums(jnp.promote_types(network.layers.param_dtype, jnp.float32), params, metrics),
            average=jax.tree.map(jnp.array, params) if ema else None,
        )

    return begin
