"""Loads the variables of a run from one of its checkpoints, to evaluate or inspect its network."""

from pathlib import Path
from typing import Any

from resnet_flax.errors import UserError
from resnet_flax.networks import Network
from resnet_flax.runs.checkpoints import Checkpoints
from resnet_flax.training.devices import data_mesh, replicated
from resnet_flax.training.state import abstract_variables


def load_variables(
    network: Network, image_shape: tuple[int, int, int], workdir: Path, step: int | None = None
) -> dict[str, Any]:
    """Loads the variables for evaluation: ``params`` (their moving average if the run keeps one) and ``batch_stats``.

    Args:
      network: The run's network.
      image_shape: (H, W, C) of the network's input.
      step: The checkpoint to load; None for the newest.

    Raises:
      UserError: There is no such checkpoint, or it cannot be read.
    """
    like = abstract_variables(network, image_shape, replicated(data_mesh()))
    with Checkpoints(workdir, read_only=True) as checkpoints:
        found = checkpoints.restore_variables(like, step)
    if found is None:
        raise UserError(f"{workdir}: this run has no checkpoint")
    return found
