"""Evaluates a network on a split: loss, error and other metrics, with every image counted once."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from resnet_flax.data.layouts import DATA_AXIS, Arrays, Layout, device_batch
from resnet_flax.data.transforms import Transform
from resnet_flax.networks import Network, on_one_device
from resnet_flax.networks.compilation import jit
from resnet_flax.training import metric_functions
from resnet_flax.training.devices import local_copy


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The metrics of one split.

    Attributes:
      sums: The sum of each metric over the images, by name; an int is a count of images.
      images: The number of images.
    """

    sums: Mapping[str, float | int]
    images: int

    def mean(self, name: str) -> float:
        """Returns the mean of a metric over the images; for a count, the fraction of images."""
        return self.sums[name] / max(self.images, 1)

    @property
    def loss(self) -> float:
        """The mean loss."""
        return self.mean("loss")

    @property
    def errors(self) -> int:
        """The number of misclassified images."""
        return int(self.sums["error"])

    @property
    def error(self) -> float:
        """The fraction of misclassified images."""
        return self.mean("error")

    def lines(self, split: str) -> list[str]:
        """Returns one line per metric; error and loss come last: ``test error 8.27% (827 of 10000), loss 0.3012``."""
        others = [name for name in self.sums if name not in ("loss", "error")]
        return [f"{split} {self._text(name)}" for name in others] + [f"{split} {self}"]

    def _text(self, name: str) -> str:
        title = metric_functions.display_name(name)
        if isinstance(self.sums[name], int):
            return f"{title} {self.mean(name):.2%} ({self.sums[name]} of {self.images})"
        return f"{title} {self.mean(name):.4f}"

    def __str__(self) -> str:
        return f"{self._text('error')}, {self._text('loss')}"


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Evaluates variables on blocks of arrays: ``(variables, blocks) -> Evaluation``.

    Attributes:
      program: The jitted function ``(variables, arrays) -> sums``.
      metrics: The names of the metrics that it sums; it also counts ``images``.
    """

    program: Any
    metrics: Sequence[str]

    def __call__(self, variables: dict[str, Any], blocks: Iterable[Arrays]) -> Evaluation:
        totals = dict.fromkeys(self.metrics, 0) | {"images": 0}
        for arrays in blocks:
            found = jax.device_get(self.program(_of_network(variables), arrays))
            totals = {name: total + found[name].item() for name, total in totals.items()}
        return Evaluation(totals, totals.pop("images"))

    def compile(self, variables: dict[str, Any], arrays: Arrays) -> None:
        """Compiles for arguments of these shapes, dtypes and shardings, so that later calls do not have to."""
        self.program.trace(_of_network(variables), arrays).lower().compile()


def _of_network(variables: dict[str, Any]) -> dict[str, Any]:
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


def make_evaluate(
    network: Network,
    layout: Layout,
    transform: Transform,
    batch_size: int,
    mesh: Mesh,
    metrics: Sequence[str] = metric_functions.ALWAYS,
) -> Evaluate:
    """Builds ``(variables, blocks) -> Evaluation``, with running statistics and no augmentation.

    Batches are split over all devices. The last batch is padded with images that do not count, so the result does not
    depend on the batch size or the number of devices. The arrays come in blocks: a single one that holds the whole
    split, or one after the other as batches are read from disk.

    Args:
      layout: How the batches are arranged in the arrays.
      batch_size: Images per batch on all devices together; rounded up to a multiple of their number.
      metrics: Names of per-example metrics.
    """
    per_device, batches = -(-batch_size // mesh.size), layout.batches
    assert batches is not None, "this layout is for training"
    unsplit = PartitionSpec()

    def batch_sums(variables: dict, batch: dict[str, Array]) -> dict[str, Array]:
        images = transform.evaluate(batch["images"])
        logits: Any = network.apply(variables, images, train=False)
        found = metric_functions.measured(metrics, logits, {"images": images, "labels": batch["labels"]})
        return metric_functions.summed(found, batch["mask"]) | {"images": batch["mask"].sum(dtype=jnp.int32)}

    @jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(unsplit, layout.spec), out_specs=unsplit, check_vma=False)
    def sums(variables: dict, arrays: Arrays) -> dict[str, Array]:
        def at(i: Array) -> dict[str, Array]:
            return batch_sums(variables, device_batch(layout, arrays, 0, i, per_device))

        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(lambda: at(jnp.int32(0))))
        add = lambda i, totals: jax.tree.map(jnp.add, totals, at(i))  # noqa: E731
        return lax.psum(lax.fori_loop(0, batches(arrays), add, zeros), DATA_AXIS)

    return Evaluate(sums, metrics)


def evaluate_log_probabilities(scores: np.ndarray, labels: np.ndarray) -> Evaluation:
    """Computes the metrics from log-probabilities [N, classes], for example averages over several views."""
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # the user's JAX_PLATFORMS leaves it out
        cpu = None
    with jax.enable_x64(True), jax.default_device(cpu):
        logits, batch = jnp.asarray(scores, np.float64), {"labels": jnp.asarray(labels)}
        names = metric_functions.for_classes(logits.shape[1])
        sums = metric_functions.summed(metric_functions.measured(names, logits, batch))
        return Evaluation({name: total.item() for name, total in sums.items()}, len(labels))


def nonfinite_images(
    network: Network, transform: Transform, variables: dict[str, Any], batches: Iterable[dict[str, np.ndarray]]
) -> np.ndarray:
    """Returns the indices in the split, ascending [n], of the images whose loss is not finite.

    Args:
      batches: The split in order; each batch has ``images``, ``labels`` and ``counts``, which is False
        for padding and unreadable images.
    """
    single = on_one_device(network)

    @jit
    def losses(variables: dict, pixels: Array, labels: Array) -> Array:
        logits = single.apply(variables, transform.evaluate(pixels), train=False)
        return metric_functions.loss(logits, {"labels": labels})

    variables, found = local_copy(variables), []
    for batch in batches:
        found.append(np.isfinite(losses(variables, batch["images"], batch["labels"])) | ~batch["counts"])
    return np.flatnonzero(~np.concatenate(found))
