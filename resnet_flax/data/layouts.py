"""How batches lie in arrays on the devices: a whole split, or the next batches from the disk.

Both are a dict of arrays, ``images`` uint8 and ``labels`` int32, that a compiled program takes as an argument. A
layout says how they are spread over the mesh, and finds a batch in them: a stream is a resident set of a few batches.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import PartitionSpec

from resnet_flax.data.images import Images
from resnet_flax.data.order import stream_indices
from resnet_flax.data.transforms import stream_key

DATA_AXIS = "data"  # the mesh axis over which a batch is split
Arrays = dict[str, Any]


class Layout(NamedTuple):
    """How batches lie in arrays on the devices.

    Attributes:
      spec: how the arrays are spread over the mesh.
      batch_at: ``(arrays, seed, step, place) -> batch``: the examples at these places ([n] uint32) of the global batch
        of a step, as a dict: ``images`` [n, H, W, C] uint8, ``labels`` [n] int32 and, in evaluation, ``mask`` [n] bool,
        which of them count.
      batches: ``arrays -> int``: the batches of an evaluation that they hold; None in training.
    """

    spec: PartitionSpec
    batch_at: Callable[[Arrays, Any, Array, Array], dict[str, Array]]
    batches: Callable[[Arrays], int] | None = None


def shuffled(batch_size: int) -> Layout:
    """A whole split on every device, in the random order of training."""

    def batch_at(arrays: Arrays, seed: Any, step: Array, place: Array) -> dict[str, Array]:
        places = step.astype(jnp.uint32) * jnp.uint32(batch_size) + place
        indices = stream_indices(stream_key(seed, "order"), places, arrays["labels"].shape[0])
        return {name: array[indices] for name, array in arrays.items()}

    return Layout(PartitionSpec(), batch_at)


def ordered(batch_size: int) -> Layout:
    """A whole split on every device, each image once; the last batch is filled up with images that do not count."""

    def batch_at(arrays: Arrays, seed: Any, step: Array, place: Array) -> dict[str, Array]:
        size = arrays["labels"].shape[0]
        places = step * batch_size + place.astype(jnp.int32)
        indices = jnp.minimum(places, size - 1)
        return {name: array[indices] for name, array in arrays.items()} | {"mask": places < size}

    return Layout(PartitionSpec(), batch_at, lambda arrays: -(-arrays["labels"].shape[0] // batch_size))


def streamed() -> Layout:
    """The next k batches, arrays [k, B, ...] whose batches are split over the devices: step s is row s modulo k."""

    def batch_at(arrays: Arrays, seed: Any, step: Array, place: Array) -> dict[str, Array]:
        row = step % arrays["labels"].shape[0]
        return {name: lax.dynamic_index_in_dim(array, row, keepdims=False) for name, array in arrays.items()}

    return Layout(PartitionSpec(None, DATA_AXIS), batch_at, lambda arrays: arrays["labels"].shape[0])


def device_batch(layout: Layout, arrays: Arrays, seed: Any, step: Array, count: int) -> dict[str, Array]:
    """This device's share of a step's batch, ``count`` examples, with their ``place`` [n] in the global batch.

    It is called where the mesh axis ``data`` has a name: inside ``shard_map``.
    """
    first = (lax.axis_index(DATA_AXIS) * count).astype(jnp.uint32)
    place = first + jnp.arange(count, dtype=jnp.uint32)
    return layout.batch_at(arrays, seed, step, place) | {"place": place}


def rounded_up(batch_size: int, mesh: jax.sharding.Mesh) -> int:
    """The least multiple of the number of devices that is at least ``batch_size``."""
    return -(-batch_size // mesh.size) * mesh.size


def shapes(sharding: jax.sharding.Sharding, lead: tuple[int, ...], image: tuple[int, ...]) -> Arrays:
    """Describes arrays of images of a shape, and their labels, with these axes in front."""
    return {
        "images": jax.ShapeDtypeStruct((*lead, *image), np.uint8, sharding=sharding),
        "labels": jax.ShapeDtypeStruct(lead, np.int32, sharding=sharding),
    }


def put(split: Images, everywhere: jax.sharding.Sharding) -> Arrays:
    """Copies a split to every device of a (replicated) sharding, those of other hosts included."""

    def copied(array: np.ndarray) -> Array:
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, everywhere, lambda index: array[index])

    return {"images": copied(split.images), "labels": copied(split.labels)}
