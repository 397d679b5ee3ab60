"""Builds the mesh of all devices on all hosts, and checks that a batch can be split over it."""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from resnet_flax.data.layouts import DATA_AXIS
from resnet_flax.errors import UserError


def data_mesh() -> Mesh:
    """Builds the mesh of all devices on all hosts, with one axis, ``data``."""
    # Since jax 0.11, axes are Explicit by default, and a Linen step does not compile with those.
    return jax.make_mesh((jax.device_count(),), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding under which every device holds a full copy."""
    return NamedSharding(mesh, PartitionSpec())


def local_copy(tree: Any) -> Any:
    """Returns the copy of a replicated tree on one device of this host."""
    return jax.tree.map(lambda array: array.addressable_data(0), tree)


def check_batch(batch_size: int, bn_group: int, devices: int) -> None:
    """Refuses a batch size or BN group size that does not divide evenly among the devices."""
    if batch_size % devices:
        below, above = batch_size // devices * devices, -(-batch_size // devices) * devices
        nearest = " or ".join(str(b) for b in (below, above) if b)
        raise UserError(f"train.batch_size={batch_size} is not divisible by the {devices} devices; {nearest} would be")
    if not bn_group:
        return
    local = batch_size // devices
    if batch_size % bn_group or (local % bn_group and bn_group % local):
        raise UserError(
            f"train.bn_group={bn_group} does not fit train.batch_size={batch_size} on {devices} devices: it must "
            f"divide the batch, and divide the {local} images of a device or be a multiple of them"
        )


def uses_batch_statistics(config: ConfigDict) -> bool:
    """Tells whether training normalises groups of images: the network has BN, and is not frozen below its head."""
    return config.model.norm == "batch" and config.optimizer.trainable == "all"


def check_accumulation(config: ConfigDict, devices: int) -> None:
    """Refuses a ``train.accumulate`` that does not divide a device's images, or whose parts would split a BN group."""
    parts, local = config.train.accumulate, config.train.batch_size // devices
    if local % parts:
        raise UserError(f"train.accumulate={parts} must divide the {local} images of a device")
    group = config.train.bn_group or config.train.batch_size
    if parts > 1 and uses_batch_statistics(config) and local // parts % group:
        raise UserError(
            f"train.accumulate={parts} makes parts of {local // parts} images, but BN normalises {group} images "
            f"together; set train.bn_group to a divisor of {local // parts}"
        )
