"""The config by which a trained network is evaluated: its own, or one that names other images."""

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
    """The config by which a run is evaluated, resolved: its own, or one that names other images or another place.

    Args:
      given: a config of the same network, or None for the run's own.
      set_by_user: its keys that the user sets, beside those that it was loaded with.

    Raises:
      UserError: no run is there, the config is of another network, or the images have moved.
    """
    run, set_by_user = RunDirectory(workdir), set_by_user | configs.set_by_user(given)
    trained = run.existing_config()
    if run.rules() < 2 and not trained.data.folder and configs.in_memory(trained.data):
        trained.data.resize = 0  # which was ignored then
    if given is None:
        _check_places(trained := configs.resolve(trained))
        return trained
    given = configs.with_network_of(trained, given, set_by_user, f"--workdir={workdir}")
    if given.data.name == trained.data.name:
        # What set images aside and normalised pixels in training holds here, too; only the place may be another.
        for key in configs.flatten(trained.data):
            if f"data.{key}" not in configs.RESUME_MAY_CHANGE:
                given.data[key] = trained.data[key]
    else:
        _prepare_as(given, trained, set_by_user)
    return given


def config_of_file(file: Weights, given: ConfigDict | None = None, set_by_user: Set[str] = frozenset()) -> ConfigDict:
    """The config by which the network in a file of weights is evaluated, resolved; see :func:`config_of_run`.

    Raises:
      UserError: the file does not say which network it is of and no config is given, or the images have moved.
    """
    config, set_by_user = weights.config_of(file, given, set_by_user), set_by_user | configs.set_by_user(given)
    if file.config is not None:
        _prepare_as(config, configs.from_json(file.config), set_by_user)
    if given is None:
        _check_places(config)
    return config


def _prepare_as(given: ConfigDict, trained: ConfigDict, set_by_user: Set[str]) -> None:
    """Brings other data to the size of the trained network's images, unless the user sets another."""
    for key in ("image_size", "resize", "interpolation"):
        if f"data.{key}" not in set_by_user:
            given.data[key] = trained.data[key]


def _check_places(config: ConfigDict) -> None:
    """Refuses images that have moved since they were trained on, and says how to name where they lie now."""
    for key in ("data.folder", "data.data_dir"):
        there = config.data[key.removeprefix("data.")]
        if there and not expanded(there).is_dir():
            units = config.model.stage_units
            same = f" --config.model.stage_units={units}" if units else ""
            raise UserError(
                f"{key}={there}, where the images lay in training: there is no such folder; name where they lie now, "
                f"with a config of the same network: --config=FILE:{configs.name_of(config.model)}{same} "
                f"--config.{key}=FOLDER"
            )
