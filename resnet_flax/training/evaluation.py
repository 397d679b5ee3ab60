"""Loss and error of a network on a split: every image counts once."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from resnet_flax.data.images import Images
from resnet_flax.data.layouts import DATA_AXIS, Arrays, Layout, device_batch
from resnet_flax.data.transforms import Transform
from resnet_flax.networks import Network, on_one_device
from resnet_flax.networks.compilation import jit
from resnet_flax.training.devices import on_host


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Of a split: its mean loss, the images classified wrongly, and how many there are."""

    loss: float
    errors: int
    images: int

    @property
    def error(self) -> float:
        """The fraction classified wrongly."""
        return self.errors / self.images

    def __str__(self) -> str:
        return f"error {self.error:.2%} ({self.errors} of {self.images}), loss {self.loss:.4f}"


def make_evaluate(
    network: Network, layout: Layout, transform: Transform, batch_size: int, mesh: Mesh
) -> Callable[[dict[str, Any], Iterable[Arrays]], Evaluation]:
    """Compiles ``(variables, blocks) -> Evaluation``, with running statistics and no augmentation.

    Batches are split over all devices. The last one is filled up with images that do not count, so the result is
    that of the whole split whatever the batch size and the number of devices. Arrays come in blocks: one that holds a
    whole split, or many of batches from the disk.

    Args:
      layout: how the batches lie in the arrays.
      batch_size: of all devices together; it is rounded up to a multiple of their number.
    """
    per_device = -(-batch_size // mesh.size)
    everyone = PartitionSpec()

    @jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(everyone, layout.spec), out_specs=everyone, check_vma=False)
    def sums(variables: dict, arrays: Arrays) -> tuple[Array, Array, Array]:
        def add(i: Array, totals: tuple[Array, ...]) -> tuple[Array, ...]:
            batch = device_batch(layout, arrays, 0, i, per_device)
            images = transform.evaluate(batch["images"])
            found = _score(network, variables, images, batch["labels"], batch["mask"])
            return jax.tree.map(jnp.add, totals, (*found, batch["mask"].sum(dtype=jnp.int32)))

        none = jnp.zeros((), transform.dtype), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        return lax.psum(lax.fori_loop(0, layout.batches(arrays), add, none), DATA_AXIS)

    def evaluate(variables: dict[str, Any], blocks: Iterable[Arrays]) -> Evaluation:
        variables = {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
        loss, errors, images = 0.0, 0, 0
        for arrays in blocks:
            found = jax.device_get(sums(variables, arrays))
            loss, errors, images = loss + float(found[0]), errors + int(found[1]), images + int(found[2])
        return Evaluation(loss=loss / max(images, 1), errors=errors, images=images)

    return evaluate


def _score(network: Network, variables: dict, images: Array, labels: Array, counts: Array) -> tuple[Array, Array]:
    """Of those images that count: the sum of the losses, and how many are classified wrongly."""
    logits = network.apply(variables, images, train=False)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    wrong = (jnp.argmax(logits, -1) != labels) & counts
    return jnp.where(counts, losses, 0).sum(), wrong.sum(dtype=jnp.int32)


def of_log_probabilities(scores: np.ndarray, labels: Sequence[int]) -> Evaluation:
    """Loss and error count by the logarithms of class probabilities [N, classes], such as averages over views."""
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    losses = -scores[np.arange(len(labels)), labels]
    return Evaluation(float(losses.mean()), int((scores.argmax(1) != labels).sum()), len(labels))


def not_finite(
    network: Network, transform: Transform, variables: dict[str, Any], images: Images, batch_size: int
) -> np.ndarray:
    """Finds the images of a split whose loss is not finite; returns their places [n], growing."""
    alone = on_one_device(network)

    @jit
    def losses(variables: dict, pixels: Array, labels: Array) -> Array:
        logits = alone.apply(variables, transform.evaluate(pixels), train=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    variables, found = on_host(variables), []
    for first in range(0, len(images), batch_size):
        part = slice(first, first + batch_size)
        found.append(np.asarray(losses(variables, images.images[part], images.labels[part])))
    return np.flatnonzero(~np.isfinite(np.concatenate(found)))
