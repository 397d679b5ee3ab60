"""Grids over config keys: ``model.depth=8,20`` and ``model.unit=plain,residual`` are four cases."""

import itertools
from collections.abc import Sequence
from typing import Any

from resnet_flax import config as configs
from resnet_flax.errors import UserError
from resnet_flax.sweeps.cases import Asked, Case


def cases(texts: Sequence[str], asked: Asked) -> list[Case]:
    """All combinations of values, each text being ``KEY=VALUE,VALUE,...``.

    Raises:
      UserError: a key is not known or named twice, a value is not of its kind, or two keys contradict each other.
    """
    grid = [parse(text) for text in texts]
    keys = [key for key, _ in grid]
    repeated = {key for key in keys if keys.count(key) > 1}
    if repeated:
        raise UserError(
            f"--grid names {', '.join(sorted(repeated))} more than once; give all of its values in one --grid"
        )
    depths = {"model.depth", "model.stage_units"}
    if len(depths & {*keys, *asked.overrides}) > 1:
        raise UserError(
            "model.stage_units takes the place of model.depth, so --grid and --config may set only one of the two"
        )
    points = (dict(zip(keys, values, strict=True)) for values in itertools.product(*(values for _, values in grid)))
    return [Case("", _as_family(point)) for point in points]


def _as_family(point: dict[str, Any]) -> dict[str, Any]:
    """The unit ``vgg`` of names as the config has it: plain units of that family."""
    if point.get("model.unit") != "vgg":
        return point
    return point | {"model.unit": "plain", "model.family": "vgg"}


def parse(text: str) -> tuple[str, list[Any]]:
    """``model.depth=8,20`` -> ``("model.depth", [8, 20])``, of the types that the config's keys have."""
    key, equals, values = text.partition("=")
    if not equals or not values:
        raise UserError(f"--grid {text!r} is not KEY=VALUE,VALUE,..., such as model.depth=20,56")
    if key not in configs.KEYS:
        raise UserError(f"--grid {text}: {configs.unknown_key(key, list(configs.KEYS))}")
    if key == "seed":
        raise UserError(f"--grid {text}: give seeds as --seeds={values}")
    return key, [_parsed(text, configs.KEYS[key], value) for value in _split(values)]


def _split(values: str) -> list[str]:
    """At commas outside of brackets: a value may be a tuple, ``(3,4,6)``."""
    parts, depth = [""], 0
    for character in values:
        depth += (character == "(") - (character == ")")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _parsed(text: str, key: configs.Key, value: str) -> Any:
    try:
        return key.parse(value)
    except (KeyError, ValueError):
        raise UserError(f"--grid {text}: {value!r} is no value of {key.name}; it must be {key.wanted()}") from None
