"""This project's training step as in a run: many steps per call, with data and augmentation on the device."""

import dataclasses
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.data import datasets, layouts
from resnet_flax.data.images import Images
from resnet_flax.data.layouts import Arrays, Layout
from resnet_flax.data.pixels import Normalization
from resnet_flax.data.transforms import Transform
from resnet_flax.training.devices import data_mesh, replicated
from resnet_flax.training.recipe import Recipe
from resnet_flax.training.setup import assemble, image_dtype
from resnet_flax.training.state import State, initial_state
from resnet_flax.training.step import TrainSteps, make_train_steps


@dataclasses.dataclass
class Training:
    """A training step, its state, and random images for training.

    Attributes:
      config: The resolved config.
      steps: ``(state, data, count) -> state``.
      state: The run's state, which is donated at each call.
      data: The images and labels on the device.
      layout: How batches are taken from the data.
      transform: Augmentation and normalisation of the images.
    """

    config: ConfigDict
    steps: TrainSteps
    state: State
    data: Arrays
    layout: Layout
    transform: Transform

    def compile(self) -> jax.stages.Compiled:
        """Compiles the steps, and uses the compiled program from then on."""
        self.steps = self.steps.compile(self.state, self.data)
        return self.steps.program

    def run(self, count: int) -> Any:
        """Takes ``count`` steps in one call; returns the sums of their metrics."""
        self.state = self.steps(self.state, self.data, count)
        return self.state.sums


def load_config(name: str, **keys: Any) -> ConfigDict:
    """Loads the config ``FILE:NAME`` of configs/, such as ``cifar10:residual-20``, and sets the given keys.

    Bottlenecks have their stride on the 3x3 by default here, as those of the peers and of torchvision.
    """
    file, _, network = name.partition(":")
    config = configs.load(f"configs/{file}.py", network or None)
    if config.model.block == "bottleneck":
        keys = {"model.bottleneck_stride": "3x3"} | keys
    config.update_from_flattened_dict(keys)
    return configs.resolve(config)


def shape_and_classes(config: ConfigDict) -> tuple[tuple[int, int, int], int]:
    """Returns the image shape (H, W, C) and the number of classes of the config's data set, without reading it."""
    data = datasets.unread(config.data)
    return data.access.image_shape, len(data.classes)


def training(config: ConfigDict, images: int = 1024) -> Training:
    """Builds the training of a config on random images in place of its data set, ready to compile or to run."""
    shape, classes = shape_and_classes(config)
    mesh, mean = data_mesh(), Normalization(np.full(shape, 0.5), np.ones(1))
    setup, recipe = assemble(config, datasets.unread(config.data), mesh, mean), Recipe(config)
    network, batch_size = setup.network, config.train.batch_size
    transform = Transform(mean, image_dtype(config), config.data.pad, config.data.flip)
    state = initial_state(network, recipe.optimizer(), config.seed, shape, replicated(mesh), config.optimizer.ema)
    rng = np.random.default_rng(0)
    data = layouts.put(
        Images(rng.integers(0, 256, (images, *shape), np.uint8), rng.integers(0, classes, images).astype(np.int32)),
        replicated(mesh),
    )
    layout = layouts.shuffled(batch_size)
    steps = make_train_steps(network, recipe, layout, transform, config.seed, batch_size, mesh, onednn=setup.onednn)
    return Training(config, steps, state, data, layout, transform)
