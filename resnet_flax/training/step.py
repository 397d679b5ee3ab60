"""The training step, and a compiled program that takes many steps in one call."""

import dataclasses
import operator
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec
from jax.typing import ArrayLike

from resnet_flax.data.layouts import DATA_AXIS, Arrays, Layout, device_batch
from resnet_flax.data.transforms import Transform, example_keys, stream_key
from resnet_flax.networks import Network
from resnet_flax.networks.compilation import jit
from resnet_flax.training import metric_functions
from resnet_flax.training.devices import local_copy, replicated
from resnet_flax.training.optimizer import moving_average
from resnet_flax.training.recipe import Numbers, Recipe
from resnet_flax.training.state import State


def training_step(
    state: State,
    images: Array,
    labels: Array,
    *,
    network: Network,
    optimizer: optax.GradientTransformation,
    axis_name: str | None = None,
    dropout_keys: Array | None = None,
    unit_key: Array | None = None,
    label_smoothing: float = 0.0,
    accumulate: int = 1,
    ema: ArrayLike = 0.0,
    metrics: Sequence[str] = (),
) -> State:
    """Takes one training step on one device's share of the batch; a pure function that returns the new state.

    The loss is the mean cross-entropy over the global batch. Every device gets the gradients and the sums of metrics of
    the global batch.

    Args:
      state: The state before the step.
      images: [n, H, W, C], this device's images.
      labels: [n] int32.
      axis_name: The mesh axis over which the batch is split; None on one device.
      network: The network, built with the same ``axis_name``.
      optimizer: The optimizer of the recipe; it adds the weight decay, which the loss does not hold.
      dropout_keys: [n], a random key for each image; needed if the network has dropout.
      unit_key: The step's random key, the same on all devices; needed if the network's units are random.
      label_smoothing: The part of each target that is spread over all classes (arXiv:1512.00567, section 7).
      accumulate: The number of parts of the n images that are computed one after the other, which needs the memory of
        one part. The result is that of the whole batch if each BN group lies within a part.
      ema: The final decay of :func:`~.optimizer.moving_average`, if the state has an average.
      metrics: The names in ``train.metrics``, whose sums the state has.
    """
    rngs = None if unit_key is None else {"unit": unit_key}
    of_examples = ("error", *(name for name in metrics if name in metric_functions.OF_EXAMPLES))

    def loss_of(params: dict, images: Array, labels: Array, keys: Array | None) -> tuple[Array, tuple[dict, dict]]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, updates = network.apply(
            variables, images, train=True, dropout_keys=keys, mutable=["batch_stats"], rngs=rngs
        )
        losses = _cross_entropy(logits, labels, label_smoothing)
        measured = metric_functions.measured(of_examples, logits, {"images": images, "labels": labels})
        return losses.mean(), (metric_functions.summed(measured), updates.get("batch_stats", {}))

    differentiate = jax.value_and_grad(loss_of, has_aux=True)
    if accumulate == 1:
        (loss, (totals, batch_stats)), gradients = differentiate(state.params, images, labels, dropout_keys)
    else:
        (loss, (totals, batch_stats)), gradients = _in_parts(
            partial(differentiate, state.params), accumulate, (images, labels, dropout_keys)
        )
    count = jnp.int32(labels.shape[0])
    if axis_name is not None:
        # If BN groups lie within devices, each device has statistics of its own groups, so these are averaged too.
        gradients, loss, batch_stats = lax.pmean((gradients, loss, batch_stats), axis_name)
        totals, count = lax.psum((totals, count), axis_name)

    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    average = None if state.average is None else moving_average(state.average, params, state.step, ema)
    of_steps = {name: metric_functions.OF_STEPS[name] for name in metrics if name not in of_examples}
    totals |= {name: function(gradients, state.params, updates) for name, function in of_steps.items()}
    sums = _add_metrics(state, totals, loss, count)
    return State(state.step + 1, params, batch_stats, opt_state, sums, average)


def _add_metrics(state: State, totals: dict[str, Any], loss: Array, count: Array) -> dict[str, Any]:
    """Adds a step to the state's sums: each metric's total over the batch, the loss of its images, and their number."""
    before = state.sums
    totals = {metric_functions.SAVED_AS.get(name, name): total for name, total in totals.items()}
    totals |= {"loss": loss * count, "images": count}
    sums = {name: jax.tree.map(lambda a, b: a + b.astype(a.dtype), before[name], totals[name]) for name in totals}
    is_first_bad = ~jnp.isfinite(loss) & (before["first_bad_step"] < 0)
    return sums | {"first_bad_step": jnp.where(is_first_bad, state.step, before["first_bad_step"])}


def _cross_entropy(logits: Array, labels: Array, smoothing: float) -> Array:
    """Computes the loss of each example [n] from logits [n, classes] and labels [n]."""
    if not smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, smoothing))


def _in_parts(differentiate: Callable[..., Any], count: int, batch: tuple[Array | None, ...]) -> Any:
    """Accumulates ``differentiate`` over ``count`` parts of a batch: averages all results but the sums of metrics."""

    # Not optax.microbatch: it puts every count-th image into a part, but a BN group is of consecutive images.
    def part(array: Array) -> Array:
        return array.reshape(count, array.shape[0] // count, *array.shape[1:])

    def add(totals: Any, images: tuple[Array, ...]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, totals, differentiate(*images)), None

    parts = jax.tree.map(part, batch)
    shapes = jax.eval_shape(differentiate, *jax.tree.map(lambda a: a[0], parts))
    totals, _ = lax.scan(add, jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes), parts)
    (loss, (sums, batch_stats)), gradients = totals
    loss, batch_stats, gradients = jax.tree.map(lambda a: a / count, (loss, batch_stats, gradients))
    return (loss, (sums, batch_stats)), gradients


@dataclasses.dataclass(frozen=True)
class TrainSteps:
    """The function ``(state, arrays, count) -> state`` that takes ``count`` steps; the state is donated.

    Attributes:
      program: The jitted function. The seed and the recipe's numbers are its last arguments, so that runs that differ
        only in these share a compiled program.
      seed: The seed of the run.
      numbers: The numbers of its recipe.
      replicated: The sharding of arrays of which every device holds a full copy.
    """

    program: Any
    seed: int
    numbers: Numbers
    replicated: jax.sharding.Sharding

    def __call__(self, state: State, arrays: Arrays, count: int) -> State:
        return self.program(state, arrays, *self._arguments(count))

    def compile(self, state: State, arrays: Arrays) -> "TrainSteps":
        """Returns the steps, compiled for arguments of these shapes, dtypes and shardings."""
        return dataclasses.replace(self, program=self.trace(state, arrays).lower().compile())

    def trace(self, state: State, arrays: Arrays) -> jax.stages.Traced:
        """Traces the program; the arguments may be ``ShapeDtypeStruct``s, even of devices that are not present."""
        others = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=self.replicated),
            (np.int32(1), np.uint32(self.seed), dict(self.numbers)),
        )
        return self.program.trace(state, arrays, *others)

    def _arguments(self, count: int) -> tuple[Array, Array, dict[str, Array]]:
        """Returns the last arguments on all devices; only a new count needs a host-to-device transfer."""
        if count not in self._counts:
            self._counts[count] = _on_all_devices(np.int32(count), self.replicated)
        return self._counts[count], *self._constant

    @cached_property
    def _counts(self) -> dict[int, Array]:
        return {}

    @cached_property
    def _constant(self) -> tuple[Array, dict[str, Array]]:
        numbers = {name: _on_all_devices(number, self.replicated) for name, number in self.numbers.items()}
        return _on_all_devices(np.uint32(self.seed), self.replicated), numbers


def _on_all_devices(number: np.ndarray | np.generic, sharding: jax.sharding.Sharding) -> Array:
    """Copies an array to every local device of a replicated sharding."""
    # Device by device: with several hosts, a device_put to the whole sharding would compare the value across hosts.
    devices = sorted(sharding.addressable_devices, key=operator.attrgetter("id"))
    return jax.make_array_from_single_device_arrays(
        number.shape, sharding, [jax.device_put(number, d) for d in devices]
    )


def make_train_steps(
    network: Network,
    recipe: Recipe,
    layout: Layout,
    transform: Transform,
    seed: int,
    batch_size: int,
    mesh: Mesh,
    label_smoothing: float = 0.0,
    accumulate: int = 1,
    metrics: Sequence[str] = (),
    onednn: bool = False,
) -> TrainSteps:
    """Builds ``(state, arrays, count) -> state``, one program for all counts; the state is donated.

    The batch is split over the mesh axis ``data``; everything else is replicated. The results are the same bits however
    the steps are split into calls.

    Args:
      network: A network built with ``axis_name=DATA_AXIS``.
      recipe: The optimizer and schedule. Its numbers become arguments of the program.
      layout: How the batches are arranged in the arrays.
      transform: Normalises and augments the images of a batch.
      seed: The seed of the run.
      batch_size: Images per step, on all devices together.
      mesh: The mesh of all devices.
      label_smoothing: See :func:`training_step`.
      accumulate: See :func:`training_step`.
      metrics: See :func:`training_step`.
      onednn: Whether oneDNN computes the operations that it can (:func:`~.networks.compilation.onednn_pays`).
    """
    per_device = batch_size // mesh.size

    def step(arrays: Arrays, seed: Array, numbers: Numbers, state: State) -> State:
        batch = device_batch(layout, arrays, seed, state.step, per_device)
        keys = example_keys(seed, "dropout", state.step, batch["place"]) if network.dropout else None
        draws = network.unit.is_random and not network.frozen
        unit_key = jax.random.fold_in(stream_key(seed, "unit"), state.step) if draws else None
        return training_step(
            state, transform.train(batch, seed, state.step), batch["labels"], network=network,
            optimizer=recipe.optimizer(numbers), axis_name=DATA_AXIS, dropout_keys=keys,
            unit_key=unit_key, label_smoothing=label_smoothing, accumulate=accumulate, ema=numbers["optimizer.ema"],
            metrics=metrics,
        )  # fmt: skip

    unsplit = PartitionSpec()

    @partial(
        jax.shard_map, mesh=mesh, in_specs=(unsplit, layout.spec, unsplit, unsplit, unsplit), out_specs=unsplit,
        check_vma=False,
    )  # fmt: skip
    def steps(state: State, arrays: Arrays, count: Array, seed: Array, numbers: Numbers) -> State:
        return lax.fori_loop(0, count, lambda _, s: step(arrays, seed, numbers, s), state)

    platform = mesh.devices.flat[0].platform
    return TrainSteps(
        jit(steps, platform, onednn and platform == "cpu", donate_argnums=0), seed, recipe.numbers, replicated(mesh)
    )


@partial(jax.jit, donate_argnums=0)
def reset_sums(state: State) -> State:
    """Resets the sums of metrics after a line was written."""
    zeros = jax.tree.map(jnp.zeros_like, state.sums)
    return dataclasses.replace(state, sums=zeros | {"first_bad_step": jnp.full_like(zeros["first_bad_step"], -1)})


def all_finite(state: State) -> bool:
    """Tells whether every parameter, average and running statistic is finite; only such states are saved.

    Checked on the host: for a hundred arrays, compiling a program would take longer than all the checks of most runs.
    """
    leaves = jax.tree.leaves((state.params, state.average, state.batch_stats))
    return all(np.isfinite(leaf).all() for leaf in jax.device_get(local_copy(leaves)))
