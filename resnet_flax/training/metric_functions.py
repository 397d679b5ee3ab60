"""The registry of metrics; each metric is one function.

There are two kinds: per example (computed from logits and labels) and per step (computed from gradients, parameters
and updates). Loss and error are always measured, in training and in evaluation. The others are measured in a run if
``train.metrics`` names them; the command ``evaluate`` measures all per-example metrics. A new metric, registered here
or in a file that runs before training (such as a config file), then appears in metrics.jsonl, TensorBoard, the progress
bar and tables:

    @of_examples
    def doubt(logits, batch):
        return 1 - jax.nn.softmax(logits).max(-1)

    @of_steps
    def momentum_norm(gradients, params, updates):
        return optax.global_norm(updates)
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from resnet_flax.errors import UserError
from resnet_flax.networks.layer_names import named_leaves
from resnet_flax.networks.stages import is_stacked
from resnet_flax.registry import ANY, Registry

ALWAYS = ("loss", "error")  # measured whatever the config says
SAVED_AS = {"error": "errors"}  # metrics whose sum has another name in a run's state and checkpoints

# Other keys of a line of metrics.jsonl, of which some get a beginning (``train_``) or an ending, and of a state's sums.
_OTHER_KEYS = (
    "step|epoch|learning_rate|images_per_second|seconds|(train|test|validation)_.*|.*_raw|error_clean|errors|images"
    "|first_bad_step"
)

# The batch that a per-example metric gets, in training and in evaluation: ``images`` [n, H, W, C], the network's input
# (normalised, in training also augmented; absent where several views are averaged), and ``labels`` [n] int32.
Batch = Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class OfExamples:
    """A per-example metric.

    Attributes:
      function: ``(logits [n, classes], batch) -> [n]``, numbers or booleans; see :data:`Batch`. The caller masks
        padding and sums over images and devices. The mean over the images is reported, with the count for booleans.
      above: The metric is defined only for data sets with more classes than this.
    """

    function: Callable[[Array, Batch], Array]
    above: int = 0


# A per-step metric: ``(gradients, params, updates) -> numbers``, a scalar or a tree of them (:func:`by_layer`), where
# ``params`` are the parameters before the update. The mean over the steps since the last line is reported.
OfSteps = Callable[[Any, Any, Any], Any]

OF_EXAMPLES: Registry[OfExamples] = Registry("metric", names=ANY)
OF_STEPS: Registry[OfSteps] = Registry("metric", names=ANY)


def of_examples(function: Callable[[Array, Batch], Array] | None = None, *, above: int = 0) -> Callable:
    """Registers the decorated function as a per-example metric, under its name; see :class:`OfExamples`."""

    def add(function: Callable[[Array, Batch], Array]) -> Callable[[Array, Batch], Array]:
        OF_EXAMPLES[function.__name__] = OfExamples(function, above)
        OF_STEPS.pop(function.__name__, None)
        return function

    return add if function is None else add(function)


def of_steps(function: OfSteps) -> OfSteps:
    """Registers the decorated function as a per-step metric, under its name; see :data:`OfSteps`."""
    OF_STEPS[function.__name__] = function
    OF_EXAMPLES.pop(function.__name__, None)
    return function


def choices() -> list[str]:
    """Returns the names that ``train.metrics`` may hold."""
    return [name for name in (*OF_EXAMPLES, *OF_STEPS) if name not in ALWAYS]


def for_classes(classes: int) -> tuple[str, ...]:
    """Returns the names of the per-example metrics that are defined for this number of classes."""
    return tuple(name for name, metric in OF_EXAMPLES.items() if classes > metric.above)


def measured(names: Sequence[str], logits: Array, batch: Batch) -> dict[str, Array]:
    """Computes the named per-example metrics; returns an array [n] for each.

    Raises:
      UserError: A metric returns another shape, or uses a key that its batch does not have.
    """
    found: dict[str, Array] = {}
    for name in names:
        values = found[name] = OF_EXAMPLES[name].function(logits, _Batch(name, batch))
        if getattr(values, "shape", None) != logits.shape[:1]:
            raise UserError(
                f"metric {name!r} returned {_kind(values)}; a per-example metric returns one number per example, shape "
                f"{logits.shape[:1]}"
            )
    return found


class _Batch(dict[str, Array]):
    """The batch of one metric, which names it if it uses another key."""

    def __init__(self, metric: str, batch: Batch) -> None:
        super().__init__(batch)
        self._metric = metric

    def __missing__(self, key: str) -> Array:
        raise UserError(f"metric {self._metric!r} uses batch[{key!r}]; here the batch has {' and '.join(self)}")


def _kind(values: Any) -> str:
    return f"shape {values.shape}" if hasattr(values, "shape") else f"a value of type {type(values).__name__}"


def check_of_steps(name: str, found: Any) -> None:
    """Refuses the result of a per-step metric that :func:`numbers` could not name.

    Raises:
      UserError: The result is not a number, nor a dict of numbers by layer.
    """
    leaves = jax.tree_util.tree_leaves_with_path(found)
    wrong = [
        leaf for path, leaf in leaves
        if len(leaf.shape) > is_stacked(path) or not all(isinstance(key, jax.tree_util.DictKey) for key in path)
    ]  # fmt: skip
    if wrong or not leaves:
        what = _kind(wrong[0] if wrong and not isinstance(found, list | tuple) else found)
        raise UserError(
            f"metric {name!r} returned {what}; a per-step metric returns a number, shape (), or a dict of numbers by "
            f"layer, with shape (units,) for layers of scanned units"
        )


def summed(found: Mapping[str, Array], mask: Array | bool = True) -> dict[str, Array]:
    """Sums per-example metrics [n] over the examples in the mask; the sum of a boolean metric is an int32 count."""

    def total(values: Array) -> Array:
        if values.dtype == bool:
            return (values & mask).sum(dtype=jnp.int32)
        return jnp.where(mask, values, 0).sum().astype(jnp.promote_types(values.dtype, jnp.float32))

    return {name: total(values) for name, values in found.items()}


@of_examples
def loss(logits: Array, batch: Batch) -> Array:
    """The cross-entropy. Training reports the minimised loss instead, which includes ``train.label_smoothing``."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])


@of_examples
def error(logits: Array, batch: Batch) -> Array:
    """Tells whether the class with the largest logit is wrong."""
    return jnp.argmax(logits, -1) != batch["labels"]


@of_examples(above=5)
def top5_error(logits: Array, batch: Batch) -> Array:
    """Tells whether the image's class is not among the five with the largest logits.

    Equal logits are ranked by class index, as ``argmax`` takes the first: a network with equal logits for all classes
    is right only on the first five classes. A NaN logit counts as an error.
    """
    labels = batch["labels"][:, None]
    own = jnp.take_along_axis(logits, labels, 1)
    before = (logits > own) | ((logits == own) & (jnp.arange(logits.shape[1]) < labels))
    return (before.sum(1) >= 5) | jnp.isnan(own[:, 0])


@of_steps
def gradient_norm(gradients: Any, params: Any, updates: Any) -> Any:
    """The norm of the loss gradient (without weight decay) of each layer."""
    return jax.tree.map(jnp.sqrt, by_layer(gradients))


@of_steps
def update_ratio(gradients: Any, params: Any, updates: Any) -> Any:
    """The norm of each layer's update, divided by the norm of its updated parameters; 0 if nothing is updated."""

    def ratio(update: Array, after: Array) -> Array:
        return jnp.where(update == 0, 0, jnp.sqrt(update / jnp.where(update == 0, 1, after)))

    return jax.tree.map(ratio, by_layer(updates), by_layer(optax.apply_updates(params, updates)))


for _registry, _other in ((OF_EXAMPLES, OF_STEPS), (OF_STEPS, OF_EXAMPLES)):
    _registry.reserve("|".join([_OTHER_KEYS, *_other]))


def by_layer(tree: Any) -> Any:
    """Returns the sum of squares of each layer's parameters: a scalar, or [units] for a layer of scanned units."""

    def squares(path: tuple, leaf: Array) -> Array:
        axes = tuple(range(1 if is_stacked(path) else 0, leaf.ndim))
        return jnp.square(leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))).sum(axes)

    def layers(tree: Any) -> Any:
        if not isinstance(tree, Mapping):
            return tree
        whole = all(not isinstance(part, Mapping) for part in tree.values())
        return sum(tree.values()) if whole else {name: layers(part) for name, part in tree.items()}

    return layers(jax.tree_util.tree_map_with_path(squares, tree))


def training_metrics(sums: Mapping[str, Any], metrics: Sequence[str], batch_size: int) -> dict[str, float]:
    """Returns the training metrics since the last line, by their names in metrics.jsonl.

    Args:
      sums: The state's sums, on the host.
      metrics: The names in ``train.metrics``.
      batch_size: Images per step.
    """
    images = int(sums["images"])
    found = {}
    for name in (*ALWAYS, *(name for name in metrics if name in OF_EXAMPLES)):
        found[f"train_{name}"] = sums[SAVED_AS.get(name, name)].item() / images
    for name in (name for name in metrics if name in OF_STEPS):
        found |= numbers(name, jax.tree.map(lambda a: a / (images / batch_size), sums[name]))
    return found


def progress_text(sums: Mapping[str, Any], metrics: Sequence[str], batch_size: int) -> str:
    """Formats the training metrics for the progress bar; shows the range of a metric with a value per layer."""
    found, said = training_metrics(sums, metrics, batch_size), []
    for name in ("error", *metrics):
        values = [value for key, value in found.items() if key in (f"train_{name}", name) or key.startswith(f"{name}/")]
        if name.endswith("error"):
            said.append(f"{display_name(name)} {values[0]:.2%}")
        else:
            said.append(
                f"{display_name(name)} " + " to ".join(f"{v:.3g}" for v in dict.fromkeys((min(values), max(values))))
            )
    return "training " + ", ".join(said)


def display_name(name: str) -> str:
    """Returns a metric's name as shown to users, such as ``top-5 error``."""
    return re.sub(r"top(\d)", r"top-\1", name.replace("_", " "))


def numbers(name: str, values: Any) -> dict[str, float]:
    """Flattens a per-step metric into named numbers for metrics.jsonl, in the order of the layers.

    For example ``{"gradient_norm/stem_conv": 0.1, "gradient_norm/stage1.1.conv1": 0.2, ...}``, where ``stage1.1`` is
    unit 1 of stage 1. A scalar metric keeps its own name.
    """
    return {f"{name}/{layer}" if layer else name: float(value) for layer, value in named_leaves(values)}
