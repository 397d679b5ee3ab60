"""Converts a file of weights to a network's config and variables."""

import sys
from collections.abc import Mapping, Set
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.errors import UserError
from resnet_flax.interchange import names, weight_layouts
from resnet_flax.interchange.files import Weights, read
from resnet_flax.interchange.published import evaluation_sizes
from resnet_flax.interchange.weight_layouts import WeightLayout
from resnet_flax.networks import Network, build
from resnet_flax.runs.schemas import read_config

__all__ = ["ADOPTED", "config_of", "deviations", "read", "settings_of", "variables"]

# Keys that a network needs to compute the same as in training, in addition to those that its name determines.
ADOPTED = (
    "model.shortcut", "model.shortcut_padding", "model.bottleneck_stride", "model.bn_epsilon", "data.normalization",
)  # fmt: skip


def settings_of(weights: Weights, family: str) -> dict[str, Any]:
    """Returns the config keys in which the file's network may differ from the files in ``configs/``.

    They come from the config in the file, or from the file's layout (``weight_layouts.py``) if it holds no config.
    """
    if weights.config is not None:
        trained = configs.flatten(read_config(weights.config.encode(), weights.path))
        return {key: trained[key] for key in ADOPTED}
    layout = names.layout_of(weights, family)
    return dict(layout.settings) if layout.families[0] == family else {}


def deviations(config: ConfigDict) -> list[str]:
    """Lists how a network differs from the other library's network with the same tensor names.

    An exported file then loads into the other library's network without an error, but gives other logits.

    Args:
      config: The resolved config.

    Returns:
      A clause for each difference; empty if the logits are the same.
    """
    model, layout = config.model, weight_layouts.of_family(config.model.family)
    ours = configs.flatten(config)
    unit = f"model.unit={model.unit}, and {layout.name} network has residual"
    return [unit] * _has_other_units(model, layout) + [
        f"{key}={ours[key]}, and {layout.name} network has {value}"
        for key, value in layout.settings.items()
        if layout.families[0] == model.family and key.startswith("model.") and configs.KEYS[key].applies(ours)
        and ours[key] != value
    ]  # fmt: skip


def _has_other_units(model: Mapping[str, Any], layout: WeightLayout) -> bool:
    """Tells whether a network has the tensors of the library's network, which is residual, but other units."""
    if model["unit"] == "residual" or model["family"] != layout.families[0]:
        return False

    def tensors(**keys: str) -> dict[str, tuple[int, ...]]:
        network = build({**model, **keys}, classes=1)
        return {entry.name: entry.shape for entry in names.entries(network, (32, 32, 3), layout)}

    options = layout.settings.get("model.shortcut", "AB")
    return tensors() in [tensors(unit="residual", shortcut=option) for option in options]


def config_of(weights: Weights, given: ConfigDict | None, set_by_user: Set[str]) -> ConfigDict:
    """Returns the resolved config for building a file's network and preparing its images.

    The config in the file takes precedence. For a file of another library, the keys come from its layout, except those
    that the user has set.

    Args:
      given: The config of the command line, or None.
      set_by_user: Keys that the command line sets, in addition to those that the config was loaded with.

    Raises:
      UserError: Neither the file nor the caller gives a config, or they name different networks.
    """
    set_by_user = set_by_user | configs.set_by_user(given)
    if weights.config is not None:
        trained = configs.resolve(read_config(weights.config.encode(), weights.path))
        if given is None:
            return trained
        return configs.with_network_of(trained, given, set_by_user, str(weights.path))
    if given is None:
        raise UserError(f"{weights.path} does not say which network it is of; name it: --config=FILE:UNIT-DEPTH")
    given = given.copy_and_resolve_references()
    layout = names.layout_of(weights, given.model.family)
    if layout.families[0] == given.model.family:
        flat = configs.flatten(given)
        told, source = evaluation_sizes(weights.path) if layout.views else ({}, "")
        # data.resize follows a data.image_size of the user's that is not the library's.
        size = {**layout.views, **told}.get("data.image_size")
        other = "data.image_size" in set_by_user and flat["data.image_size"] != size
        kept = {*set_by_user, *["data.resize"] * other}
        settings = {
            key: value for key, value in {**layout.settings, **layout.views, **told}.items()
            if key not in kept and flat[key] != value
        }  # fmt: skip
        given.update_from_flattened_dict(settings)
        if settings:
            said = ", ".join(f"{key}={value}" for key, value in settings.items())
            print(f"{weights.path}: in {layout.name} layout, so {said}", file=sys.stderr)
        if layout.views:
            data = given.data
            why = f"as {source} tells" if source else "its name does not tell at which size it was evaluated"
            print(
                f"{weights.path}: images of {data.image_size} pixels out of {data.resize or data.image_size}, "
                f"{data.interpolation} ({why})",
                file=sys.stderr,
            )
    return configs.resolve(configs.for_evaluation(given))


def variables(
    weights: Weights,
    network: Network,
    image_shape: tuple[int, int, int],
    model: Mapping[str, Any],
    without_head: bool = False,
) -> dict[str, Any]:
    """Converts the file's tensors to the network's variables, NumPy arrays of its ``param_dtype``.

    Args:
      network: The network for one device.
      image_shape: (H, W, C).
      model: The config's section ``model``, from which the network was built.
      without_head: Whether to leave out the last dense layer, even if the file has one.

    Raises:
      UserError: Tensors are missing, left over or of another shape; the message names them.
    """
    what = f"{model['family']} {configs.name_of(model)}"
    layout = names.layout_of(weights, model["family"])
    found = names.from_tensors(network, image_shape, weights, what, layout, without_head)
    if weights.config is None and _has_other_units(model, layout):
        print(
            f"{weights.path}: in {layout.name} layout, whose networks have residual units; model.unit={model['unit']} "
            f"gives other logits",
            file=sys.stderr,
        )
    if weights.config and (unit := read_config(weights.config.encode(), weights.path).model.unit) != model["unit"]:
        print(
            f"{weights.path}: of a network with model.unit={unit}; model.unit={model['unit']} gives other logits",
            file=sys.stderr,
        )
    dtype = np.dtype(network.layers.param_dtype)
    return jax.tree.map(lambda a: np.array(a, dtype), found)  # copies, so that no view keeps the file mapped
