"""The registry of metrics: each is one function. A new one appears in training, evaluation and files by itself.

    @of_examples
    def error(logits, batch):
        return jnp.argmax(logits, -1) != batch["labels"]

What a metric of examples returns, [n], is masked, summed and added over devices by whoever calls it, and reported as
its mean over the images. One that returns whether something is so is a count.
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax.numpy as jnp
import optax
from jax import Array

Batch = Mapping[str, Array]
_OfExamples = Callable[[Array, Batch], Array]


@dataclasses.dataclass(frozen=True)
class OfExamples:
    """A metric of examples.

    Attributes:
      function: ``(logits [n, classes], batch) -> [n]``, numbers or whether something is so.
      above: it is for data with more classes than this.
    """

    function: _OfExamples
    above: int = 0


OF_EXAMPLES: dict[str, OfExamples] = {}


def of_examples(function: _OfExamples | None = None, *, above: int = 0) -> Callable:
    """Adds the decorated function to the registry, under its name; see :class:`OfExamples`."""

    def add(function: _OfExamples) -> _OfExamples:
        OF_EXAMPLES[function.__name__] = OfExamples(function, above)
        return function

    return add if function is None else add(function)


def for_classes(classes: int) -> dict[str, _OfExamples]:
    """The metrics of examples for data with so many classes, by name."""
    return {name: metric.function for name, metric in OF_EXAMPLES.items() if classes > metric.above}


@of_examples
def loss(logits: Array, batch: Batch) -> Array:
    """The cross-entropy."""
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
