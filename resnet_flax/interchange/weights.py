"""A file of weights as a network's variables: which config it belongs to, and its tensors in our places."""

import sys
from collections.abc import Set
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.errors import UserError
from resnet_flax.interchange import names
from resnet_flax.interchange.files import Weights, read
from resnet_flax.training.devices import replicated
from resnet_flax.training.loop import Parts
from resnet_flax.training.trained import on_one_device

__all__ = ["config_of", "read", "variables"]

# How akamaster's networks were trained, where the paper leaves it open or is not followed.
_AKAMASTER = {"model.shortcut_padding": "both", "data.normalization": "imagenet"}


def config_of(weights: Weights, given: ConfigDict | None, set_by_user: Set[str]) -> ConfigDict:
    """The config, resolved, by which a file's network is built and its images are normalised.

    What the file says of itself comes first; for one in akamaster's names, where its option A puts the zero channels
    and how its images were normalised, unless the user has set these keys.

    Args:
      given: of the command line, or None.
      set_by_user: keys that the command line sets.

    Raises:
      UserError: there is none, or the file's own is of another network.
    """
    if weights.config is not None:
        trained = configs.resolve(configs.from_json(weights.config))
        if given is None:
            return trained
        given = configs.resolve(given)
        differing = [d for d in configs.differences(trained, given) if d.startswith("model.")]
        if differing:
            raise UserError(f"{weights.path} holds another network than --config names: {'; '.join(differing)}")
        if given.data.name == trained.data.name:
            given.data.normalization = trained.data.normalization
        return given
    if given is None:
        raise UserError(f"{weights.path} does not say which network it is of; name it: --config=FILE:UNIT-DEPTH")
    if names.is_akamaster(weights) and given.model.family == "cifar":
        taken = {key: value for key, value in _AKAMASTER.items() if key not in set_by_user}
        given = given.copy_and_resolve_references()
        given.update_from_flattened_dict(taken)
        if taken:
            said = ", ".join(f"{key}={value}" for key, value in taken.items())
            print(f"{weights.path}: named as akamaster's networks, so {said}", file=sys.stderr)
    return configs.resolve(given)


def variables(weights: Weights, parts: Parts) -> dict[str, Any]:
    """The file's tensors as the variables of ``parts.network``, on every device.

    Raises:
      UserError: they do not fit; it says which are missing, left over or of another shape.
    """
    network, model = on_one_device(parts.network), parts.config.model
    shape = parts.dataset.train.images.shape[1:]
    found = names.from_pytorch(
        names.entries(network, shape, model.family), weights, f"{model.family} {configs.name_of(model)}"
    )
    dtype = np.dtype(network.layers.param_dtype)
    return jax.device_put(jax.tree.map(lambda a: np.asarray(a, dtype), found), replicated(parts.mesh))
