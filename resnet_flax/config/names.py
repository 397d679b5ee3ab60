"""Names of networks such as ``residual-56``, and the keys that they stand for."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from resnet_flax.config.derived import follow
from resnet_flax.config.key import there
from resnet_flax.errors import UserError

# The keys that a name sets; those of which :func:`layers_of` is a function; and those that say which network it is.
NAME_KEYS = ("model.family", "model.unit", "model.block", "model.depth")
DEPTH_KEYS = ("model.family", "model.block", "model.depth", "model.stage_units")
NETWORK_KEYS = ("model.unit", *DEPTH_KEYS)


def layers_of(family: str, block: str, depth: int, stage_units: tuple[int, ...]) -> int:
    """Counts the layers of the network that these keys of ``model`` name; the depth where they name none."""
    if not stage_units:
        return depth
    try:
        return there("networks:depth_of")(family, block, stage_units)
    except (ValueError, KeyError):
        return depth


def check_depth(c: ConfigDict, given: Collection[str]) -> None:
    """Refuses a depth that was given and is not that of the stages: the network would not have it.

    Args:
      given: keys that the user sets.

    Raises:
      UserError: both were named, or one of them, and they differ.
    """
    values = [c.model[key.partition(".")[2]] for key in DEPTH_KEYS]
    depth, layers = c.model.depth, layers_of(*values)
    if "model.depth" in given and layers != depth:
        raise UserError(
            f"model.depth={depth} has no effect beside model.stage_units={tuple(c.model.stage_units)}, which make "
            f"{layers} layers; leave one of the two out"
        )


def apply_name(c: ConfigDict, name: str) -> ConfigDict:
    """Sets unit, block and depth from ``UNIT-DEPTH`` or ``UNIT-bottleneck-DEPTH`` (``UNIT-basic-DEPTH``).

    Where the name has no block it is the family's usual one: ``basic`` in the CIFAR family, Table 1's for that depth
    in the ImageNet family, ``single`` in the others. ``vgg-DEPTH`` sets the family as well, with dense layers of 4096
    where the family was ImageNet's, else of 512, and dropout of a half. Which units and depths exist is checked by
    :func:`validate`.
    """
    unit, _, rest = name.partition("-")
    block, _, depth = rest.rpartition("-")
    known = unit.lower() not in ("resnet", "res", "") and block in ("", "basic", "bottleneck")
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


_VGG_HIDDEN = {True: (4096, 4096), False: (512, 512)}  # by whether the images are ImageNet's


def name_of(model: Mapping[str, Any]) -> str:
    """Returns the shortest name that :func:`apply_name` turns into this section ``model``, such as ``vgg-16``."""
    unit, block, depth = model["unit"], model["block"], model["depth"]
    unit = "vgg" if (model["family"], unit) == ("vgg", "plain") else unit
    return f"{unit}-{depth}" if block == _usual_block(model["family"], depth) else f"{unit}-{block}-{depth}"


def network_name(model: Mapping[str, Any]) -> str:
    """Returns the :func:`name_of` a section ``model`` that is not resolved: with the layers that its stages come to."""
    depth = layers_of(*(model[key.partition(".")[2]] for key in DEPTH_KEYS))
    return name_of({"unit": model["unit"], "family": model["family"], "block": model["block"], "depth": depth})


def _usual_block(family: str, depth: int) -> str:
    if family in ("vgg", "highway"):
        return "single"
    return "bottleneck" if family == "imagenet" and depth not in (18, 34) else "basic"
