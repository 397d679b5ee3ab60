"""Loads the network of a run from one of its checkpoints, to evaluate or inspect it."""

import dataclasses
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from resnet_flax.errors import UserError
from resnet_flax.networks import Network
from resnet_flax.runs.checkpoints import Checkpoints
from resnet_flax.training.devices import data_mesh, replicated
from resnet_flax.training.setup import RunSetup, prepare
from resnet_flax.training.state import abstract_variables


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """The setup of a run, and its variables at one step.

    Attributes:
      variables: ``params`` (their moving average if the run keeps one) and ``batch_stats``.
    """

    setup: RunSetup
    variables: dict[str, Any]


def load_run(config: ConfigDict, workdir: Path, step: int | None = None) -> TrainedRun:
    """Builds the data set and network of a run, and loads its variables.

    Args:
      config: The run's own config, resolved, or one with the same network.
      step: The checkpoint to load; None for the newest.

    Raises:
      UserError: There is no such checkpoint, or it cannot be read.
    """
    setup = prepare(config)
    return TrainedRun(setup, load_variables(setup.network, setup.image_shape, workdir, step))


def load_variables(
    network: Network, image_shape: tuple[int, int, int], workdir: Path, step: int | None = None
) -> dict[str, Any]:
    """Loads the variables for evaluation, without the data set; ``image_shape`` is (H, W, C)."""
    like = abstract_variables(network, image_shape, replicated(data_mesh()))
    with Checkpoints(workdir, read_only=True) as checkpoints:
        found = checkpoints.restore_variables(like, step)
    if found is None:
        raise UserError(f"{workdir}: this run has no checkpoint")
    return found
