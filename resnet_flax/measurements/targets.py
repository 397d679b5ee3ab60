"""Compiles a training step for accelerators that this machine does not have, and bounds its memory and time.

A process on a CPU compiles for an NVIDIA H100 or a TPU v5e with the packages of an extra (``cuda13``, ``tpu``), and
reads the compiled program. The program does not run: its time is a lower bound by published rates, not a measurement.
"""

import dataclasses
import math
import os
import re
import time
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh
from ml_collections import ConfigDict

from resnet_flax.analysis.counts import least_bytes_of, multiply_adds_of
from resnet_flax.data import datasets, pixels
from resnet_flax.data.images import Images
from resnet_flax.data.layouts import DATA_AXIS
from resnet_flax.errors import UserError
from resnet_flax.measurements.chips import CHIPS, H100_CONFIG, Chip
from resnet_flax.measurements.hlo import Counts, Program
from resnet_flax.networks import on_one_device
from resnet_flax.training.devices import replicated
from resnet_flax.training.executor import train_steps
from resnet_flax.training.readiness import check_settings
from resnet_flax.training.recipe import Recipe
from resnet_flax.training.setup import RunSetup, assemble
from resnet_flax.training.state import State, abstract_state
from resnet_flax.training.step import training_step

_FORMS = "h100:1 to h100:8 (GPUs of one machine), v5e:2x2, v5e:4x4, v5e:8x8 or v5e:16x16 (a slice of chips)"
# Autotuning, and choosing among Triton's matrix products, would run kernels on a GPU, which does not exist here.
_GPU_FLAGS = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"
_OUT_OF_MEMORY = re.compile(r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT]) hbm")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Target:
    """The accelerators for which a program is compiled.

    Attributes:
      text: The target's name, such as ``h100:8`` or ``v5e:4x4``.
      chip: The kind of accelerator.
      sides: Number of devices along each side of their mesh.
    """

    text: str
    chip: Chip
    sides: tuple[int, ...]

    @property
    def devices(self) -> int:
        """The number of devices."""
        return math.prod(self.sides)

    def mesh(self) -> Mesh:
        """Returns a mesh of all devices along one axis, ``data``.

        Raises:
          UserError: The packages that compile for these devices are not installed.
        """
        try:
            if self.chip.mesh:
                name = f"{self.chip.name}:{self.text.partition(':')[2]}"
                found = topologies.get_topology_desc(platform="tpu", topology_name=name)
            else:
                found = topologies.get_topology_desc(
                    platform="cuda", target_config=H100_CONFIG, topology=f"1x{self.devices}x1"
                )
        except (RuntimeError, NotImplementedError, ValueError) as error:  # jax raises these without the plugin
            raise UserError(
                f"--target={self.text}: no compiler for it is installed; pip install -e '.[{self.chip.extra}]' with "
                f"Python 3.12 or later ({' '.join(str(error).split())[:120]})"
            ) from None
        return Mesh(np.asarray(found.devices), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def parse(text: str) -> Target:
    """Parses a target's name.

    Raises:
      UserError: No target has this name.
    """
    name, _, size = text.partition(":")
    if name in CHIPS and re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", size):
        chip, sides = CHIPS[name], tuple(int(side) for side in size.split("x"))
        if size in ("2x2", "4x4", "8x8", "16x16") if chip.mesh else len(sides) == 1 and sides[0] <= 8:
            return Target(text, chip, sides)
    raise UserError(f"--target={text}: choose from {_FORMS}")


def set_up() -> None:
    """Prepares this process to compile for devices that it does not have. Call it before jax is used."""
    jax.config.update("jax_platforms", "cpu")  # otherwise CUDA's plugin looks for a GPU when it is loaded
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_GPU_FLAGS}"
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # otherwise libtpu queries a cloud's metadata server
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # without a TPU, no lock is needed
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # hides the compiler's own warning of memory, which the caller reports


@dataclasses.dataclass(frozen=True)
class Work:
    """The work of a training step on each device, counted from the step's equations before they are compiled.

    Attributes:
      flops: Operations of convolutions and matrix products.
      least_bytes: Least bytes that these operations and the optimizer read and write in the device's memory.
      gradient_bytes: Bytes of the gradients, which are summed over the devices.
    """

    flops: float
    least_bytes: float
    gradient_bytes: float


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A training step compiled for a target.

    Attributes:
      seconds: Seconds for compiling.
      needed: Bytes of a device's memory that the program needs.
      temporaries: The part of ``needed`` for temporary arrays.
      counts: Counts of the operations that a step launches; None if the program did not fit into memory.
    """

    seconds: float
    needed: float
    temporaries: float
    counts: Counts | None


@dataclasses.dataclass(frozen=True)
class Bound:
    """Lower bounds on the time of a step, each by one resource. The resources may be used at the same time.

    Attributes:
      seconds: The bound of each resource: ``compute``, ``memory``, ``launches``, ``all-reduce``.
    """

    seconds: dict[str, float]

    @property
    def binds(self) -> str:
        """The resource with the greatest bound."""
        return max(self.seconds, key=self.seconds.__getitem__)

    @property
    def least(self) -> float:
        """The least seconds of a step: the greatest of the bounds."""
        return self.seconds[self.binds]


class TargetStep:
    """The training step of a run, for the devices of a target.

    Args:
      config: A resolved config.
      mesh: The target's devices.
      images: Number of images of the training split, for data that is kept in memory; a stream keeps one batch at a
        time.

    Raises:
      UserError: The config does not fit the number of devices, or they do not support ``model.dtype``.
    """

    def __init__(self, config: ConfigDict, target: Target, mesh: Mesh, images: int) -> None:
        if config.model.dtype not in target.chip.flops:
            known = ", ".join(target.chip.flops)
            raise UserError(f"model.dtype={config.model.dtype}: on {target.chip.name} choose from {known}")
        check_settings(config, None, target.devices)
        self.config, self.target, self._images = config, target, images
        data = datasets.unread(config.data)
        side, channels = data.access.resize, data.access.image_shape[2]
        like = Images(np.arange(side * side * channels, dtype=np.uint8).reshape(1, side, side, channels), np.zeros(1))
        normalization = pixels.normalization(config.data.normalization, like)
        self.setup: RunSetup = assemble(config, data, mesh, normalization)
        self._recipe = Recipe(config)
        self._optimizer = self._recipe.optimizer()

    @property
    def state(self) -> State:
        """The shapes of the run's state."""
        setup, ema = self.setup, self.config.optimizer.ema
        everywhere = replicated(setup.mesh)
        return abstract_state(setup.network, self._optimizer, setup.image_shape, everywhere, ema, setup.metrics)

    def trace(self) -> jax.stages.Traced:
        """Traces the program that takes many steps in a call, as a run does."""
        access, batch_size = self.setup.dataset.access, self.config.train.batch_size
        layout, arrays = access.training_shapes(self.setup.mesh, batch_size, self._images)
        return train_steps(self.setup, self._recipe, layout).trace(self.state, arrays)

    def work(self) -> Work:
        """Counts the work of a step."""
        config, state = self.config, self.state
        step = partial(
            training_step, network=on_one_device(self.setup.network), optimizer=self._optimizer,
            dropout_keys=jax.random.split(jax.random.key(0), self._share) if self.setup.network.dropout else None,
            label_smoothing=config.train.label_smoothing, accumulate=config.train.accumulate, ema=config.optimizer.ema,
            metrics=self.setup.metrics,
        )  # fmt: skip
        images = jax.ShapeDtypeStruct((self._share, *self.setup.image_shape), np.float32)
        arguments = state, images, jax.ShapeDtypeStruct((self._share,), np.int32)
        params = _bytes(state.params)
        kept = params + _bytes(state.opt_state) + _bytes(state.average)
        trained = params if config.optimizer.trainable == "all" else 0
        on_chip = self.target.chip.on_chip
        least = least_bytes_of(step, *arguments, on_chip=on_chip) + 2 * max(0, kept - on_chip)
        return Work(2 * multiply_adds_of(step, *arguments), least, trained)

    @property
    def _share(self) -> int:
        return self.config.train.batch_size // self.target.devices

    def compile(self) -> Compiled:
        """Compiles the step for the target, and reads the compiled program."""
        lowered = self.trace().lower()
        started = time.perf_counter()
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            found = _OUT_OF_MEMORY.search(str(error))
            if found is None:
                raise
            needed = float(found[1]) * _UNITS[found[2]]
            return Compiled(time.perf_counter() - started, needed, math.nan, None)
        seconds, memory = time.perf_counter() - started, compiled.memory_analysis()
        program = Program(compiled.as_text())
        counts = program.step()
        if self.config.data.pipeline == "stream":  # a call takes one step
            counts += program.outside_step()
        arguments = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        return Compiled(seconds, arguments + memory.temp_size_in_bytes, memory.temp_size_in_bytes, counts)

    def fits(self, compiled: Compiled) -> bool:
        """Tells whether a device has the memory that the program needs."""
        return compiled.needed <= self.target.chip.memory

    def bound(self, compiled: Compiled | None, work: Work) -> Bound:
        """Bounds the time of a step by the published rates; the bound by launches is 0 if there is no program."""
        chip, counts = self.target.chip, compiled and compiled.counts
        return Bound(
            {
                "compute": work.flops / chip.flops[self.config.model.dtype],
                "memory": work.least_bytes / chip.memory_bandwidth,
                "launches": counts.launches * chip.launch_seconds if counts else 0.0,
                "all-reduce": chip.all_reduce_seconds(work.gradient_bytes, self.target.sides),
            }
        )


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
