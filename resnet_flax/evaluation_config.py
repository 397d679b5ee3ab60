"""The config for evaluating a trained network: its own, or one that names other images."""

from collections.abc import Set
from pathlib import Path

from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.errors import UserError
from resnet_flax.interchange import weights
from resnet_flax.interchange.files import Weights
from resnet_flax.paths import expanded
from resnet_flax.runs.directory import RunDirectory


def config_of_run(workdir: Path, given: ConfigDict | None = None, set_by_user: Set[str] = frozenset()) -> ConfigDict:
    """Returns the resolved config for evaluating a run: its own, or one that names other images or their new location.

    Args:
      given: A config of the same network, or None for the run's own.
      set_by_user: Keys of ``given`` that the command line sets, in addition to the keys it was loaded with.

    Raises:
      UserError: The directory holds no run, the config is of another network, or the images have moved.
    """
    run, set_by_user = RunDirectory(workdir), set_by_user | configs.set_by_user(given)
    trained = run.existing_config()
    if run.rules() < 2 and not trained.data.folder and configs.in_memory(trained.data):
        trained.data.resize = 0  # under the first rules the key had no effect
    if given is None:
        _check_image_folders(trained := configs.resolve(trained))
        return trained
    return configs.with_network_of(trained, given, set_by_user, f"--workdir={workdir}")


def config_of_file(file: Weights, given: ConfigDict | None = None, set_by_user: Set[str] = frozenset()) -> ConfigDict:
    """Returns the resolved config for evaluating a file of weights; see :func:`config_of_run` for the arguments.

    Raises:
      UserError: The file does not name its network and no config is given, or the images have moved.
    """
    config = weights.config_of(file, given, set_by_user)
    if given is None:
        _check_image_folders(config)
    return config


def _check_image_folders(config: ConfigDict) -> None:
    """Refuses a config whose image folder no longer exists, and says how to name the new one."""
    for key in ("data.folder", "data.data_dir"):
        there = config.data[key.removeprefix("data.")]
        if there and not expanded(there).is_dir():
            units = config.model.stage_units
            same = f" --config.model.stage_units={units}" if units else ""
            raise UserError(
                f"{key}={there}, the image folder of the training run: there is no such folder; name the new one, with "
                f"a config of the same network: --config=FILE:{configs.name_of(config.model)}{same} "
                f"--config.{key}=FOLDER"
            )
