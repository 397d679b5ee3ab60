"""Checks that runs can start before the first of them does; nothing is compiled or written."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax import memory
from resnet_flax.data import datasets
from resnet_flax.data.datasets import Data
from resnet_flax.data.pixels import Normalization
from resnet_flax.data.tfds_sets import TESTED_ON
from resnet_flax.errors import UserError
from resnet_flax.networks import Network, build, on_one_device
from resnet_flax.runs import resume
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.training import fine_tuning
from resnet_flax.training.devices import check_accumulation, check_batch, uses_batch_statistics
from resnet_flax.training.setup import check_precision, check_registered, preprocessing
from resnet_flax.training.state import abstract_variables, zero_sums


def check_settings(config: ConfigDict, run: RunDirectory | None, devices: int) -> None:
    """Checks a config against its run directory and the number of devices, without loading the data.

    Args:
      config: A resolved config, with the settings of its weights (:func:`~.fine_tuning.adopt`).
      run: The run directory; None if another process checks it.
      devices: The number of devices of the run.

    Raises:
      UserError: The config cannot run.
    """
    if run is not None:
        resume.check_config(run, config)
        resume.check_rules(run, config)
    check_precision(config)
    check_batch(config.train.batch_size, config.train.bn_group if uses_batch_statistics(config) else 0, devices)
    check_accumulation(config, devices)


def check_images(run: RunDirectory, config: ConfigDict, data: Data, normalization: Normalization) -> None:
    """Checks that a run is resumed on the images with which it started.

    Raises:
      UserError: The images differ.
    """
    resume.check_images(run, preprocessing(config, data, normalization), images_record(data))
    if data.note.startswith(TESTED_ON):
        resume.check_tested(run, config, data.note)


def check_shapes(config: ConfigDict, network: Network, image_shape: tuple[int, int, int]) -> None:
    """Checks that the network can be applied to the images, by tracing it, and the shapes of its metrics.

    Args:
      image_shape: (H, W, C) of the network's input.

    Raises:
      UserError: It cannot, or a metric has another shape than it should. An error of a file that ``--module`` names is
        raised as it is.
    """
    try:
        found = abstract_variables(on_one_device(network), image_shape, None)
        metrics = configs.names_in(config.train.metrics)
        jax.eval_shape(partial(zero_sums, jnp.dtype(jnp.float32), metrics=metrics), found["params"])
    except (ValueError, TypeError) as error:
        if isinstance(error, UserError) or configs.explain_own_error(error):
            raise
        raise UserError(f"{configs.name_of(config.model)}: {' '.join(str(error).split())[:300]}") from error


def images_record(data: Data) -> dict[str, Any]:
    """Returns the content of photographs.json: the fingerprint, form, place and numbers of a data set's images."""
    return {
        "fingerprint": data.fingerprint, "form": data.access.form, "where": data.source or data.where,
        "train": len(data.train), "test": len(data.test),
    }  # fmt: skip


class Readiness:
    """Checks runs one after the other; data and weights that consecutive runs share are read once.

    Args:
      devices: The number of devices of each run; None if the runs use another machine, such as a cluster.
    """

    def __init__(self, devices: int | None) -> None:
        self._devices = devices
        self._known: dict[tuple[str, ...], Any] = {}

    def check(self, config: ConfigDict, workdir: Path) -> None:
        """Checks the settings, data set, network, memory and weights of a run.

        Raises:
          UserError: The run cannot start.
        """
        run = RunDirectory(workdir)
        check_settings(config, run, self._devices or 1)
        if run.is_finished(config):
            return
        normalization, section = run.saved_normalization(config), json.dumps(config.data.to_dict())
        data = self._once(("data", section), lambda: datasets.load(config.data))
        if normalization is None:
            name = config.data.normalization
            normalization = self._once(
                ("normalization", section), lambda: data.access.quick_normalization(name, data.train)
            )
        check_registered(config, data)
        network = build(config.model, len(data.classes))
        if normalization is not None:
            check_images(run, config, data, normalization)
        if self._devices is not None:
            memory.check_training(config, network)
            shapes = partial(check_shapes, config, network, data.access.image_shape)
            self._once(("network", *_network_of(config, data), config.train.metrics), shapes)
        if config.init.weights and not run.steps():

            def check_weights() -> None:  # does not keep them
                fine_tuning.load(config, network, data.access.image_shape)

            what = (*_network_of(config, data), config.init.weights, str(config.init.reset_head))
            self._once(("weights", *what), check_weights)

    def _once(self, key: tuple[str, ...], make: Callable[[], Any]) -> Any:
        """Calls ``make`` once per key; later calls repeat its result or its UserError."""
        if key not in self._known:
            if key[0] == "data":  # keeps only one data set in memory
                self._known = {known: result for known, result in self._known.items() if known[0] != "data"}
            try:
                self._known[key] = make()
            except UserError as error:
                self._known[key] = error
        result = self._known[key]
        if isinstance(result, UserError):
            raise result
        return result


def _network_of(config: ConfigDict, data: Data) -> tuple[str, ...]:
    return json.dumps(config.model.to_dict()), str((len(data.classes), data.access.image_shape))
