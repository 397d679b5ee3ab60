"""Layouts of the arrays on the devices, from which compiled programs take their batches.

The arrays are a dict of ``images`` uint8 and ``labels`` int32, and hold a whole split or the next batches from disk. A
layout defines how they are sharded over the mesh, and how to find the batch of a step in them.
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
    """The sharding of the arrays on the devices, and the functions that find batches in them.

    Attributes:
      spec: The partition of the arrays over the mesh.
      batch_at: A function ``(arrays, seed, step, place) -> batch`` that returns the examples at the places ([n] uint32)
        of a step's global batch, as a dict: ``images`` [n, H, W, C] uint8, ``labels`` [n] int32 and, in evaluation,
        ``mask`` [n] bool, which is False for examples that do not count.
      batches: A function ``arrays -> int`` that returns the number of evaluation batches in them; None for
        :func:`shuffled`, which only training uses.
    """

    spec: PartitionSpec
    batch_at: Callable[[Arrays, Any, Array, Array], dict[str, Array]]
    batches: Callable[[Arrays], int] | None = None


def shuffled(batch_size: int) -> Layout:
    """Returns the layout of a split replicated on every device, in the random order of training."""

    def batch_at(arrays: Arrays, seed: Any, step: Array, place: Array) -> dict[str, Array]:
        places = step.astype(jnp.uint32) * jnp.uint32(batch_size) + place
        indices = stream_indices(stream_key(seed, "order"), places, arrays["labels"].shape[0])
        return {name: array[indices] for name, array in arrays.items()}

    return Layout(PartitionSpec(), batch_at)


def ordered(batch_size: int) -> Layout:
    """Returns the layout of a split replicated on every device, in order; fillers of the last batch are masked."""

    def batch_at(arrays: Arrays, seed: Any, step: Array, place: Array) -> dict[str, Array]:
        size = arrays["labels"].shape[0]
        places = step * batch_size + place.astype(jnp.int32)
        indices = jnp.minimum(places, size - 1)
        return {name: array[indices] for name, array in arrays.items()} | {"mask": places < size}

    return Layout(PartitionSpec(), batch_at, lambda arrays: -(-arrays["labels"].shape[0] // batch_size))


def streamed() -> Layout:
    """Returns the layout of the next k batches, [k, B, ...], sharded over B; step s takes row s modulo k."""

    def batch_at(arrays: Arrays, seed: Any, step: Array, place: Array) -> dict[str, Array]:
        row = step % arrays["labels"].shape[0]
        return {name: lax.dynamic_index_in_dim(array, row, keepdims=False) for name, array in arrays.items()}

    return Layout(PartitionSpec(None, DATA_AXIS), batch_at, lambda arrays: arrays["labels"].shape[0])


def device_batch(layout: Layout, arrays: Arrays, seed: Any, step: Array, count: int) -> dict[str, Array]:
    """Returns this device's ``count`` examples of a step's batch, with their ``place`` [n] in the global batch.

    Must be called inside ``shard_map``, where the mesh axis ``data`` has a name.
    """
    first = (lax.axis_index(DATA_AXIS) * count).astype(jnp.uint32)
    place = first + jnp.arange(count, dtype=jnp.uint32)
    return layout.batch_at(arrays, seed, step, place) | {"place": place}


def rounded_up(batch_size: int, mesh: jax.sharding.Mesh) -> int:
    """Returns ``batch_size`` rounded up to a multiple of the number of devices."""
    return -(-batch_size // mesh.size) * mesh.size


def shapes(sharding: jax.sharding.Sharding, lead: tuple[int, ...], image: tuple[int, ...]) -> Arrays:
    """Returns structs for ``images`` of a shape and their ``labels``, with the leading axes ``lead``."""
    return {
        "images": jax.ShapeDtypeStruct((*lead, *image), np.uint8, sharding=sharding),
        "labels": jax.ShapeDtypeStruct(lead, np.int32, sharding=sharding),
    }


def put(split: Images, everywhere: jax.sharding.Sharding) -> Arrays:
    """Copies a split to the devices of a replicated sharding, over all hosts."""
    return replicate({"images": split.images, "labels": split.labels}, everywhere)


def replicate(tree: Any, everywhere: jax.sharding.Sharding) -> Any:
    """Copies a tree of arrays, of which each host has a copy, to the devices of a replicated sharding."""

    def copied(array: Any) -> Array:
        array = np.asarray(array)
        # Not device_put, which refuses an array on one host's device as the source for several hosts.
        return jax.make_array_from_callback(array.shape, everywhere, lambda index: array[index])

    return jax.tree.map(copied, tree)
