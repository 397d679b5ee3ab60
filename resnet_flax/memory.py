"""Counts what a config needs at least, so that what no machine can hold is refused before it is built."""

import os

import jax
from ml_collections import ConfigDict

from resnet_flax.data import datasets
from resnet_flax.errors import UserError
from resnet_flax.networks import Network

_GIB = 2**30
_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}
_SLOTS = {"sgd": 1, "lars": 1, "adamw": 2}  # of an optimizer, for each parameter


def installed() -> float:
    """Bytes of memory of this machine; infinite where the system does not say."""
    if "SC_PHYS_PAGES" not in os.sysconf_names:
        return float("inf")
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def parameters_at_least(network: Network) -> int:
    """Counts the kernels of the units' layers and of the hidden dense layers, in a time that no depth changes."""
    total, channels = 0, network.stem.filters if network.stem else 1
    for units, filters in zip(network.stage_units, network.stage_filters, strict=True):
        inner = filters // 4 if network.layers.block == "bottleneck" else filters

        def unit(before: int, inner: int = inner, filters: int = filters) -> int:
            if network.layers.block == "bottleneck":
                return before * inner + 9 * inner * inner + inner * filters
            return 9 * before * inner + (9 * inner * inner if network.layers.block == "basic" else 0)

        total += unit(channels) + (units - 1) * unit(filters)
        channels = filters
    for width in network.hidden:
        total, channels = total + channels * width, width
    return total + channels * network.classes


def check_network(network: Network, model: ConfigDict) -> None:
    """Refuses a network whose parameters alone are more than this machine's memory.

    Raises:
      UserError: it says how many they are, and which keys make them so many.
    """
    count = parameters_at_least(network)
    needed, there = count * _BYTES[model.param_dtype], installed()
    if needed > there:
        keys = ("depth", "stage_units", "stage_filters", "width", "hidden")
        given = ", ".join(f"model.{key}={model[key]}" for key in keys if model[key])
        raise UserError(
            f"{given}: the network has at least {count:,} parameters, {needed / _GIB:,.0f} GiB; this machine has "
            f"{there / _GIB:,.0f} GiB of memory"
        )


def check_training(config: ConfigDict, network: Network) -> None:
    """Refuses a run whose state, or whose batch, is more than the memory of this process's devices.

    Counted are the parameters, their gradients and what the optimizer keeps for each; and of each image of a batch its
    pixels and what the first layer makes of them.

    Raises:
      UserError: it says what is too large.
    """
    devices, there = jax.local_devices(), _of_devices()
    model, train, optimizer = config.model, config.train, config.optimizer
    copies = 1 if optimizer.trainable == "head" else 2 + _SLOTS[optimizer.name] + (optimizer.ema > 0)
    state = len(devices) * copies * parameters_at_least(network) * _BYTES[model.param_dtype]
    if state > there:
        raise UserError(
            f"the parameters with their gradients and what optimizer.name={optimizer.name} keeps take at least "
            f"{state / _GIB:,.1f} GiB on {len(devices)} devices that have {there / _GIB:,.1f} GiB of memory; choose a "
            f"smaller model.depth or model.width"
        )
    height, width, channels = datasets.image_shape(config.data) or (config.data.image_size or 1,) * 2 + (1,)
    stem = network.stem.filters / (network.stem.stride * 2**network.stem.pool) ** 2 if network.stem else 0
    pixels = (height + 2 * config.data.pad) * (width + 2 * config.data.pad) * channels * _BYTES["float32"]
    image = pixels + height * width * stem * _BYTES[model.dtype]
    for key, parts in (("train.batch_size", train.accumulate), ("train.eval_batch_size", 1)):
        size = train[key.partition(".")[2]]
        if size / jax.process_count() / parts * image > there:
            raise UserError(
                f"{key}={size}: a batch of images of {height}x{width} pixels, data.pad={config.data.pad}, takes at "
                f"least {size * image / parts / _GIB:,.0f} GiB, and {jax.process_count() * there / _GIB:,.1f} GiB of "
                f"memory are there"
            )


def _of_devices() -> float:
    """Bytes of memory of this process's devices; those of CPUs share the machine's."""
    limits = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in jax.local_devices()]
    return sum(limits) if all(limits) else installed()
