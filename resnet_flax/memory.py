"""Estimates the memory that a config needs, to refuse configs that are too large, and returns free memory."""

import ctypes
import os

import jax
from ml_collections import ConfigDict

from resnet_flax.data import datasets
from resnet_flax.errors import UserError
from resnet_flax.networks import Network

_GIB = 2**30
_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}
_SLOTS = {
    "sgd": 1,
    "lars": 1,
    "adamw": 2,
}  # numbers that an optimizer keeps for each parameter; of one of your own, none is known


def installed() -> float:
    """Returns the bytes of memory of this machine, or infinity if the system does not report it."""
    if "SC_PHYS_PAGES" not in os.sysconf_names:
        return float("inf")
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def return_free() -> None:
    """Returns memory that this process has freed to the system.

    A compilation allocates and frees hundreds of MB in small pieces. The C library glibc keeps them, so a process that
    trains many runs would grow with each of them. Other C libraries have no such function.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def minimum_parameters(network: Network) -> int:
    """Returns a lower bound on the number of parameters: the kernels of units and dense layers."""
    total, channels, block = 0, network.stem.filters if network.stem else 1, network.layers.block
    for units, filters in zip(network.stage_units, network.stage_filters, strict=True):
        total += _kernels(block, channels, filters) + (units - 1) * _kernels(block, filters, filters)
        channels = filters
    for width in network.hidden:
        total, channels = total + channels * width, width
    return total + channels * network.classes


def _kernels(block: str, channels: int, filters: int) -> int:
    """Returns the number of weights in a unit's kernels, without its shortcut."""
    if block == "bottleneck":
        inner = filters // 4
        return channels * inner + 9 * inner * inner + inner * filters
    return 9 * channels * filters + (9 * filters * filters if block == "basic" else 0)


def check_network(network: Network, model: ConfigDict) -> None:
    """Checks that the network's parameters fit into this machine's memory.

    Raises:
      UserError: They do not fit; the message names the keys that make the network so large.
    """
    count = minimum_parameters(network)
    needed, available = count * _BYTES[model.param_dtype], installed()
    if needed > available:
        keys = ("depth", "stage_units", "stage_filters", "width", "hidden")
        given = ", ".join(f"model.{key}={model[key]}" for key in keys if model[key])
        raise UserError(
            f"{given}: the network has at least {count:,} parameters, {needed / _GIB:,.0f} GiB; this machine has "
            f"{available / _GIB:,.0f} GiB of memory"
        )


def check_training(config: ConfigDict, network: Network) -> None:
    """Checks that the state and a batch of a run fit into the memory of this process's devices.

    This is a lower bound. For the state it counts the parameters, their gradients and the optimizer's numbers for each;
    for each image of a batch it counts the pixels and the output of the first layer.

    Raises:
      UserError: The state or a batch does not fit.
    """
    devices, available = jax.local_devices(), _device_memory()
    model, train, optimizer = config.model, config.train, config.optimizer
    copies = 1 if optimizer.trainable == "head" else 2 + _SLOTS.get(optimizer.name, 0) + (optimizer.ema > 0)
    state = len(devices) * copies * minimum_parameters(network) * _BYTES[model.param_dtype]
    if state > available:
        raise UserError(
            f"the parameters, their gradients and the state of optimizer.name={optimizer.name} take at least "
            f"{state / _GIB:,.1f} GiB, but the {len(devices)} devices have {available / _GIB:,.1f} GiB of memory; "
            f"choose a smaller model.depth or model.width"
        )
    height, width, channels = datasets.image_shape(config.data) or (config.data.image_size or 1,) * 2 + (1,)
    stem = network.stem.filters / (network.stem.stride * 2**network.stem.pool) ** 2 if network.stem else 0
    pixels = (height + 2 * config.data.pad) * (width + 2 * config.data.pad) * channels * _BYTES["float32"]
    image = pixels + height * width * stem * _BYTES[model.dtype]
    for key, parts in (("train.batch_size", train.accumulate), ("train.eval_batch_size", 1)):
        size = train[key.partition(".")[2]]
        if size / jax.process_count() / parts * image > available:
            raise UserError(
                f"{key}={size}: a batch of images of {height}x{width} pixels, data.pad={config.data.pad}, takes at "
                f"least {size * image / parts / _GIB:,.0f} GiB, but the devices have "
                f"{jax.process_count() * available / _GIB:,.1f} GiB of memory"
            )


def _device_memory() -> float:
    """Returns the bytes of memory of this process's devices; CPU devices share the machine's memory."""
    limits = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in jax.local_devices()]
    return sum(limits) if all(limits) else installed()
