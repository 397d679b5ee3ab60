"""Training that starts from weights, its own or others', in place of random values (``init`` in a config)."""

import sys
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.errors import UserError
from resnet_flax.interchange import weights as interchange
from resnet_flax.networks import Network, on_one_device
from resnet_flax.training import workdir as folders
from resnet_flax.training.state import State


def adopt(config: ConfigDict, workdir: Path) -> ConfigDict:
    """The config with the settings that belong to the weights in ``init.weights``, where ``init.adopt`` is on.

    Args:
      config: resolved.
      workdir: a run that goes on there no longer needs the file.

    Raises:
      UserError: the file cannot be read.
    """
    if not config.init.weights:
        if config.init.reset_head:
            raise UserError("init.reset_head=True: there are no weights to start from; name them in init.weights")
        return config
    if not config.init.adopt:
        return config
    path = Path(config.init.weights)
    before = folders.read_config(workdir)
    if before is not None and before.init.weights == config.init.weights and not path.is_file():
        known = configs.flatten(before)
        settings = {key: known[key] for key in interchange.ADOPTED}
        source = f"{workdir / folders.CONFIG}"
    else:
        file = interchange.read(path)
        settings = interchange.settings_of(file, config.model.family)
        source = f"{path}"
    return apply_settings(config, settings, source)


def apply_settings(config: ConfigDict, settings: dict[str, object], source: str) -> ConfigDict:
    """A resolved config with these keys; says on stderr which of them changed."""
    flat = configs.flatten(config)
    changed = {key: value for key, value in settings.items() if flat[key] != value}
    if not changed:
        return config
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(changed)
    if jax.process_index() == 0:
        print(f"{source}: so {', '.join(f'{key}={value}' for key, value in changed.items())}", file=sys.stderr)
    return configs.resolve(config)


def start_from(config: ConfigDict, network: Network, image_shape: tuple[int, int, int], state: State) -> State:
    """The state at step 0 with the weights of ``init.weights`` in it; the state itself where there are none.

    Args:
      image_shape: (H, W, C).
      state: drawn at random, wherever its arrays lie; with ``init.reset_head`` its last dense layer stays.

    Raises:
      UserError: the weights do not fit the network; it says which.
    """
    if not config.init.weights:
        return state
    drawn = {"params": state.params, "batch_stats": state.batch_stats}
    found = interchange.variables(
        interchange.read(Path(config.init.weights)), on_one_device(network), image_shape, config.model,
        head={"params": jax.device_get(state.params)} if config.init.reset_head else None,
    )  # fmt: skip
    if "batch_stats" not in found:
        found["batch_stats"] = {}
    found = jax.tree.map(
        lambda new, old: jax.make_array_from_callback(old.shape, old.sharding, lambda i: np.asarray(new)[i]),
        found, drawn,
    )  # fmt: skip
    return state.replace(params=found["params"], batch_stats=found["batch_stats"])
