"""The cost of a network: its parameters, multiply-adds and activation memory, and the time of its training step."""

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.analysis.stage_costs import stage_costs
from resnet_flax.errors import UserError
from resnet_flax.measurements.timing import Spread
from resnet_flax.networks import Network, build, on_one_device
from resnet_flax.networks.compilation import jit
from resnet_flax.networks.units import UNITS
from resnet_flax.training.devices import data_mesh
from resnet_flax.training.recipe import Recipe
from resnet_flax.training.setup import network_of
from resnet_flax.training.state import initial_state
from resnet_flax.training.step import training_step


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a network.

    Attributes:
      label: The network's name, such as ``plain-56``.
      unit: The unit's name.
      depth: Number of layers with weights.
      parameters: Number of trained values.
      multiply_adds: Multiply-adds for classifying one image.
      activation_bytes: Bytes stored for the backward pass of a batch (resnet_flax/analysis/activations.py).
      compile_seconds: Seconds for compiling the training step.
      step: Seconds of a training step on a batch.
    """

    label: str
    unit: str
    depth: int
    parameters: int
    multiply_adds: int
    activation_bytes: int
    compile_seconds: float
    step: Spread


def units_with_a_basic_form() -> list[str]:
    """Returns the names of the units of which CIFAR networks of 6n+2 layers can be made."""
    found = []
    for unit in UNITS:
        c = configs.base()
        c.model.unit = unit
        try:
            configs.validate(c)
        except UserError:
            continue
        found.append(unit)
    return found


def training_call(
    config: ConfigDict, image: tuple[int, int, int], classes: int, batch: int
) -> tuple[Callable[[], Any], float]:
    """Compiles a training step (forward, backward, optimizer) on random images, for one device.

    BN normalises the whole batch. The step does not augment its images.

    Returns:
      A function that takes one step at each call, and the seconds for compiling it.
    """
    network = on_one_device(network_of(config, classes, data_mesh()))
    optimizer = Recipe(config).optimizer()
    state = initial_state(network, optimizer, config.seed, image, ema=config.optimizer.ema)
    keys = jax.random.split(jax.random.key(config.seed))
    images = jax.random.normal(keys[0], (batch, *image), config.model.param_dtype)
    labels = jax.random.randint(keys[1], (batch,), 0, classes)
    started = time.perf_counter()
    # All steps drop the same features, which takes as long as new ones.
    dropped = jax.random.split(keys[0], batch) if network.dropout else None
    step = partial(training_step, network=network, optimizer=optimizer, dropout_keys=dropped, ema=config.optimizer.ema)
    step = jit(step, donate_argnums=0)
    compiled = step.lower(state, images, labels).compile()
    seconds = time.perf_counter() - started

    def call() -> Any:
        nonlocal state
        state = compiled(state, images, labels)
        return state

    return call, seconds


def cost(
    config: ConfigDict, image: tuple[int, int, int], classes: int, batch: int, compile_seconds: float, step: Spread
) -> Cost:
    """Returns the cost of a config's network: its counts, and the given times."""
    network: Network = build(config.model, classes)
    stages = stage_costs(network, image, batch)
    return Cost(
        label=configs.name_of(config.model),
        unit=config.model.unit,
        depth=config.model.depth,
        parameters=sum(s.parameters for s in stages),
        multiply_adds=sum(s.multiply_adds for s in stages),
        activation_bytes=sum(s.activation_bytes for s in stages),
        compile_seconds=compile_seconds,
        step=step,
    )
