"""Names of networks, such as ``residual-56``, and the config keys that they set."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from resnet_flax.config.derived import follow
from resnet_flax.config.key import import_named
from resnet_flax.errors import UserError

NAME_KEYS = ("model.family", "model.unit", "model.block", "model.depth")  # set by a name
DEPTH_KEYS = ("model.family", "model.block", "model.depth", "model.stage_units")  # the arguments of layers_of
NETWORK_KEYS = ("model.unit", *DEPTH_KEYS)  # identify a network


def layers_of(family: str, block: str, depth: int, stage_units: tuple[int, ...]) -> int:
    """Counts the layers of the network with these ``model`` keys; returns ``depth`` if there is no such network."""
    if not stage_units:
        return depth
    try:
        return import_named("networks:depth_of")(family, block, stage_units)
    except (ValueError, KeyError):
        return depth


def check_depth(c: ConfigDict, given: Collection[str]) -> None:
    """Refuses a ``model.depth`` set by the user that contradicts ``model.stage_units``.

    Args:
      c: The config.
      given: The keys that the user sets.

    Raises:
      UserError: ``model.depth`` is among them, and the stages have another number of layers.
    """
    values = [c.model[key.partition(".")[2]] for key in DEPTH_KEYS]
    depth, layers = c.model.depth, layers_of(*values)
    if "model.depth" in given and layers != depth:
        raise UserError(
            f"model.depth={depth} has no effect beside model.stage_units={tuple(c.model.stage_units)}, which make "
            f"{layers} layers; set only one of the two"
        )


def apply_name(c: ConfigDict, name: str) -> ConfigDict:
    """Sets unit, block and depth from ``UNIT-DEPTH`` or ``UNIT-BLOCK-DEPTH``, such as ``residual-bottleneck-164``.

    A name without a block takes the family's usual one: ``basic`` in the CIFAR family, Table 1's for that depth in
    the ImageNet family, ``single`` in the others. ``vgg-DEPTH`` also sets the family, a dropout of 0.5, and hidden
    layers of width 4096 if the family was ImageNet's, else 512. :func:`validate` checks whether the unit and the
    depth exist.
    """
    unit, _, rest = name.partition("-")
    block, _, depth = rest.rpartition("-")
    known = unit.lower() not in ("resnet", "res", "") and block in ("", "basic", "bottleneck", "single")
    if not known or not depth.isdecimal() or (unit == "vgg" and block):
        found = re.fullmatch(r"(?:residual|resnet|res)[-_]?(\d+)", name, re.IGNORECASE)
        hint = f"; did you mean residual-{found[1]}?" if found else ""
        raise UserError(
            f"config name {name!r} is not UNIT-DEPTH or UNIT-bottleneck-DEPTH, such as residual-56, "
            f"residual-bottleneck-164 or vgg-16{hint}"
        )
    c.model.unit, c.model.depth = unit, int(depth)
    large = c.model.family == "imagenet"
    if unit == "vgg":
        c.model.family, c.model.unit = "vgg", "plain"
    follow(c, "model.hidden", lambda family: _VGG_HIDDEN[large] if family == "vgg" else (), "model.family")
    follow(c, "model.dropout", lambda family: 0.5 if family == "vgg" else 0.0, "model.family")
    if block:
        c.model.block = block
    else:
        follow(c, "model.block", _usual_block, "model.family", "model.depth")
    return c


_VGG_HIDDEN = {True: (4096, 4096), False: (512, 512)}  # True: for ImageNet's large images


def name_of(model: Mapping[str, Any]) -> str:
    """Returns the shortest name for which :func:`apply_name` sets this section ``model``, such as ``vgg-16``."""
    unit, block, depth = model["unit"], model["block"], model["depth"]
    unit = "vgg" if (model["family"], unit) == ("vgg", "plain") else unit
    return f"{unit}-{depth}" if block == _usual_block(model["family"], depth) else f"{unit}-{block}-{depth}"


def network_name(model: Mapping[str, Any]) -> str:
    """Returns :func:`name_of` for a section ``model`` that is not resolved; counts the depth from its stages."""
    depth = layers_of(*(model[key.partition(".")[2]] for key in DEPTH_KEYS))
    return name_of({"unit": model["unit"], "family": model["family"], "block": model["block"], "depth": depth})


def _usual_block(family: str, depth: int) -> str:
    if family in ("vgg", "highway"):
        return "single"
    return "bottleneck" if family == "imagenet" and depth not in (18, 34) else "basic"
