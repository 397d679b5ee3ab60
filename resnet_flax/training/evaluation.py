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
from resnet_flax.data.resident import Normalization, Resident, center
from resnet_flax.networks import Network, on_one_device
from resnet_flax.networks.compilation import jit
from resnet_flax.training.devices import DATA_AXIS, on_host


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


Evaluate = Callable[[Any, Any, Resident], Evaluation]


def make_evaluate(
    network: Network, normalization: Normalization, batch_size: int, mesh: Mesh, crop: int = 0
) -> Evaluate:
    """Compiles ``(params, batch_stats, data) -> Evaluation``, with running statistics and no augmentation.

    Batches are split over all devices. The last one is filled up with images that do not count, so the result is
    that of the whole split whatever the batch size and the number of devices.

    Args:
      batch_size: of all devices together.
      crop: the side of the central crop that the network sees; 0 for whole images.
    """
    per_device = -(-batch_size // mesh.size)
    dtype = jnp.promote_types(network.layers.param_dtype, jnp.float32)

    @jit
    @partial(jax.shard_map, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec(), check_vma=False)
    def sums(variables: dict, data: Resident) -> tuple[Array, Array]:
        size = data.labels.shape[0]
        batches = -(-size // (per_device * mesh.size))

        def add(i: int, totals: tuple[Array, Array]) -> tuple[Array, Array]:
            first = (i * mesh.size + lax.axis_index(DATA_AXIS)) * per_device
            places = first + jnp.arange(per_device, dtype=jnp.int32)
            counts = places < size
            places = jnp.minimum(places, size - 1)
            images = center(normalization(data.images[places], dtype), crop)
            loss, errors = _score(network, variables, images, data.labels[places], counts)
            return totals[0] + loss, totals[1] + errors

        totals = lax.fori_loop(0, batches, add, (jnp.zeros((), dtype), jnp.zeros((), jnp.int32)))
        return lax.psum(totals, DATA_AXIS)

    def evaluate(params: Any, batch_stats: Any, data: Resident) -> Evaluation:
        loss, errors = jax.device_get(sums({"params": params, "batch_stats": batch_stats}, data))
        size = data.labels.shape[0]
        return Evaluation(loss=float(loss) / size, errors=int(errors), images=size)

    return evaluate


def make_evaluate_batches(
    network: Network, normalization: Normalization, mesh: Mesh
) -> Callable[[Any, Any, Iterable[tuple[Array, Array, Array]]], Evaluation]:
    """Compiles ``(params, batch_stats, batches) -> Evaluation`` for batches that come from the hosts.

    A batch is images [n, H, W, C] uint8, labels [n] int32 and counts [n] bool (which of them to count), each split over
    the mesh axis ``data``.
    """
    dtype = jnp.promote_types(network.layers.param_dtype, jnp.float32)
    everyone, split = PartitionSpec(), PartitionSpec(DATA_AXIS)

    @jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(everyone, split, split, split), out_specs=everyone, check_vma=False)
    def sums(variables: dict, images: Array, labels: Array, counts: Array) -> tuple[Array, Array, Array]:
        found = _score(network, variables, normalization(images, dtype), labels, counts)
        return lax.psum((*found, counts.sum(dtype=jnp.int32)), DATA_AXIS)

    def evaluate(params: Any, batch_stats: Any, batches: Iterable[tuple[Array, Array, Array]]) -> Evaluation:
        variables = {"params": params, "batch_stats": batch_stats}
        loss, errors, images = 0.0, 0, 0
        for batch in batches:
            found = jax.device_get(sums(variables, *batch))
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
    network: Network,
    normalization: Normalization,
    variables: dict[str, Any],
    images: Images,
    batch_size: int,
    crop: int = 0,
) -> np.ndarray:
    """Finds the images of a split whose loss is not finite.

    Args:
      batch_size, crop: of :func:`make_evaluate`.

    Returns:
      Their places [n], growing.
    """
    alone, dtype = on_one_device(network), jnp.promote_types(network.layers.param_dtype, jnp.float32)

    @jit
    def losses(variables: dict, pixels: Array, labels: Array) -> Array:
        logits = alone.apply(variables, center(normalization(pixels, dtype), crop), train=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    variables, found = on_host(variables), []
    for first in range(0, len(images), batch_size):
        part = slice(first, first + batch_size)
        found.append(np.asarray(losses(variables, images.images[part], images.labels[part])))
    return np.flatnonzero(~np.isfinite(np.concatenate(found)))
