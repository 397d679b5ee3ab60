"""Starts training from given weights instead of random ones (the section ``init`` of a config)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.errors import UserError
from resnet_flax.interchange import weights as interchange
from resnet_flax.networks import Network, on_one_device
from resnet_flax.networks.finite import non_finite_layers
from resnet_flax.paths import expanded
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.file_names import CONFIG
from resnet_flax.training.state import initial_variables


def adopt(config: ConfigDict, workdir: Path, say: Callable[[str], None]) -> ConfigDict:
    """Returns the config, with the settings that the weights in ``init.weights`` need if ``init.adopt`` is on.

    Args:
      config: A resolved config.
      workdir: The run directory; a run that resumes there takes the settings from its config.json.
      say: Receives a line on the keys that change.

    Raises:
      UserError: The weights cannot be read.
    """
    if not config.init.weights:
        if config.init.reset_head:
            raise UserError("init.reset_head=True has no effect without weights to start from; set init.weights")
        return config
    if not config.init.adopt:
        return config
    before = RunDirectory(workdir).config()
    if before is not None and before.init.weights == config.init.weights:
        known = configs.flatten(before)
        settings, source = {key: known[key] for key in interchange.ADOPTED}, workdir / CONFIG
    else:
        file = interchange.read(expanded(config.init.weights), "init.weights")
        settings, source = interchange.settings_of(file, config.model.family), file.path
    return _with_settings(config, settings, source, say)


def _with_settings(
    config: ConfigDict, settings: dict[str, Any], source: Path, say: Callable[[str], None]
) -> ConfigDict:
    """Returns the config with these keys set, resolved; reports which of them changed."""
    flat = configs.flatten(config)
    changed = {key: value for key, value in settings.items() if flat[key] != value}
    if not changed:
        return config
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(changed)
    say(f"{source} sets {', '.join(f'{key}={value}' for key, value in changed.items())}")
    return configs.resolve(config)


def load(config: ConfigDict, network: Network, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Reads ``init.weights`` as variables of the network, without the head if ``init.reset_head`` is on.

    Args:
      image_shape: (H, W, C) of the network's input.

    Raises:
      UserError: The file cannot be read, does not fit the network, or holds weights that are not finite.
    """
    file = interchange.read(expanded(config.init.weights), "init.weights")
    found = interchange.variables(file, on_one_device(network), image_shape, config.model, config.init.reset_head)
    if bad := non_finite_layers(found):
        raise UserError(f"init.weights={file.path} holds weights that are not finite: {bad}")
    return found


def variables_at_start(config: ConfigDict, network: Network, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Returns the variables at step 0: drawn from the seed, and overwritten by ``init.weights`` if that is set.

    Args:
      image_shape: (H, W, C) of the network's input.

    Raises:
      UserError: The weights cannot be used; see :func:`load`.
    """
    weights = load(config, network, image_shape) if config.init.weights else None
    return initial_variables(network, config.seed, image_shape, weights=weights)
