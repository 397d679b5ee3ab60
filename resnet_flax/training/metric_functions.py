"""The registry of metrics: each is one function, in one place.

A metric is of examples or of a step. Loss and error are always measured, in training and evaluation; the others where
``train.metrics`` names them, and in the command ``evaluate``. A new one, here or in a file that runs first, such as a
config file, appears in metrics.jsonl, TensorBoard, the bar of progress and tables by itself:

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
import numpy as np
import optax
from jax import Array

from resnet_flax.networks.stages import is_stacked

ALWAYS = ("loss", "error")  # measured whatever the config says
SAVED_AS = {"error": "errors"}  # names of sums in a run's state and its checkpoints, where they are others

Batch = Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class OfExamples:
    """A metric of examples.

    Attributes:
      function: ``(logits [n, classes], batch) -> [n]``: numbers, or whether something is so, which is a count. Whoever
        calls it masks, sums and adds over devices; reported is the mean over the images.
      above: it is for data with more classes than this.
    """

    function: Callable[[Array, Batch], Array]
    above: int = 0


# A metric of a step: ``(gradients, params, updates) -> numbers``, a scalar or a tree of them (:func:`by_layer`);
# parameters are those before the update. Reported is the mean over the steps since the last line.
OfSteps = Callable[[Any, Any, Any], Any]

OF_EXAMPLES: dict[str, OfExamples] = {}
OF_STEPS: dict[str, OfSteps] = {}


def of_examples(function: Callable[[Array, Batch], Array] | None = None, *, above: int = 0) -> Callable:
    """Adds the decorated function to the registry, under its name; see :class:`OfExamples`."""

    def add(function: Callable[[Array, Batch], Array]) -> Callable[[Array, Batch], Array]:
        OF_EXAMPLES[function.__name__] = OfExamples(function, above)
        return function

    return add if function is None else add(function)


def of_steps(function: OfSteps) -> OfSteps:
    """Adds the decorated function to the registry, under its name; see :data:`OfSteps`."""
    OF_STEPS[function.__name__] = function
    return function


def choices() -> list[str]:
    """The names that ``train.metrics`` may hold."""
    return [name for name in (*OF_EXAMPLES, *OF_STEPS) if name not in ALWAYS]


def for_classes(classes: int) -> tuple[str, ...]:
    """The names of the metrics of examples for data with so many classes."""
    return tuple(name for name, metric in OF_EXAMPLES.items() if classes > metric.above)


def measured(names: Sequence[str], logits: Array, batch: Batch) -> dict[str, Array]:
    """Measures the metrics of examples of these names: for each, a number an example, [n]."""
    return {name: OF_EXAMPLES[name].function(logits, batch) for name in names}


def summed(found: Mapping[str, Array], mask: Array | bool = True) -> dict[str, Array]:
    """Sums what metrics say of examples, [n], over those that count: numbers, or whole numbers of a condition."""

    def total(values: Array) -> Array:
        if values.dtype == bool:
            return (values & mask).sum(dtype=jnp.int32)
        return jnp.where(mask, values, 0).sum().astype(jnp.promote_types(values.dtype, jnp.float32))

    return {name: total(values) for name, values in found.items()}


@of_examples
def loss(logits: Array, batch: Batch) -> Array:
    """The cross-entropy. (In training it is the loss that is minimised, with ``train.label_smoothing``.)"""
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])


@of_examples
def error(logits: Array, batch: Batch) -> Array:
    """Whether another class than the image's has the largest logit."""
    return jnp.argmax(logits, -1) != batch["labels"]


@of_examples(above=5)
def top5_error(logits: Array, batch: Batch) -> Array:
    """Whether the image's class is not among the five with the largest logits.

    Classes of equal logits come in their order, as ``argmax`` takes the first: so a network that gives the same to all
    classes is right on the first five of them alone. NaN is wrong.
    """
    labels = batch["labels"][:, None]
    own = jnp.take_along_axis(logits, labels, 1)
    before = (logits > own) | ((logits == own) & (jnp.arange(logits.shape[1]) < labels))
    return (before.sum(1) >= 5) | jnp.isnan(own[:, 0])


@of_steps
def gradient_norm(gradients: Any, params: Any, updates: Any) -> Any:
    """The norm of the loss's gradient with respect to each layer's parameters (without weight decay)."""
    return jax.tree.map(jnp.sqrt, by_layer(gradients))


@of_steps
def update_ratio(gradients: Any, params: Any, updates: Any) -> Any:
    """The norm of each layer's update relative to that of its parameters after it; 0 where nothing is updated."""

    def ratio(update: Array, after: Array) -> Array:
        return jnp.where(update == 0, 0, jnp.sqrt(update / jnp.where(update == 0, 1, after)))

    return jax.tree.map(ratio, by_layer(updates), by_layer(optax.apply_updates(params, updates)))


def by_layer(tree: Any) -> Any:
    """Sums of squares of a tree of parameters: a number a layer; of scanned units, [units] of each of their layers."""

    def squares(path: tuple, leaf: Array) -> Array:
        axes = tuple(range(1 if is_stacked(path) else 0, leaf.ndim))
        return jnp.square(leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))).sum(axes)

    def layers(tree: Any) -> Any:
        if not isinstance(tree, Mapping):
            return tree
        whole = all(not isinstance(part, Mapping) for part in tree.values())
        return sum(tree.values()) if whole else {name: layers(part) for name, part in tree.items()}

    return layers(jax.tree_util.tree_map_with_path(squares, tree))


def in_training(sums: Mapping[str, Any], metrics: Sequence[str], batch_size: int) -> dict[str, float]:
    """The metrics of training since the last line, by their names in metrics.jsonl.

    Args:
      sums: of the state, on the host.
      metrics: names of ``train.metrics``.
    """
    images = int(sums["images"])
    found = {}
    for name in (*ALWAYS, *(name for name in metrics if name in OF_EXAMPLES)):
        found[f"train_{name}"] = sums[SAVED_AS.get(name, name)].item() / images
    for name in (name for name in metrics if name in OF_STEPS):
        found |= numbers(name, jax.tree.map(lambda a: a / (images / batch_size), sums[name]))
    return found


def in_words(sums: Mapping[str, Any], metrics: Sequence[str], batch_size: int) -> str:
    """The metrics of training for the bar of progress; of one of many layers, the least and the largest number."""
    found, said = in_training(sums, metrics, batch_size), []
    for name in ("error", *metrics):
        values = [value for key, value in found.items() if key in (f"train_{name}", name) or key.startswith(f"{name}/")]
        if name.endswith("error"):
            said.append(f"{in_title(name)} {values[0]:.2%}")
        else:
            said.append(
                f"{in_title(name)} " + " to ".join(f"{v:.3g}" for v in dict.fromkeys((min(values), max(values))))
            )
    return "training " + ", ".join(said)


def in_title(name: str) -> str:
    """A metric's name for people: ``top-5 error``."""
    return re.sub(r"top(\d)", r"top-\1", name.replace("_", " "))


def numbers(name: str, values: Any) -> dict[str, float]:
    """Names each number of a step's metric, as metrics.jsonl has it, in the order of the layers.

    ``{"gradient_norm/stem_conv": 0.1, "gradient_norm/stage1.1.conv1": 0.2, ...}``: unit 1 of stage 1. A metric that is
    one number keeps its name.
    """
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(values):
        for unit, value in enumerate(np.atleast_1d(leaf), start=2):
            places = {"first": "1", "rest": str(unit)}
            layer = ".".join(places.get(key.key, key.key) for key in path)
            found[f"{name}/{layer}" if layer else name] = float(value)
    return dict(sorted(found.items(), key=lambda item: _place(item[0].rpartition("/")[2])))


def _place(layer: str) -> tuple:
    """Sorts layers: stem, stages and their units by number, the last layers."""
    group = next((i for i, begin in enumerate(("stem", "stage")) if layer.startswith(begin)), 2)
    return (group, layer == "dense", [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", layer)])
