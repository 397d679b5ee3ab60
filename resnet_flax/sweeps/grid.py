"""Grids over config keys: the axes ``model.depth=8,20`` and ``model.unit=plain,residual`` make four points.

The values of a key are a list, and whole numbers may be ranges (:mod:`~.ranges`). Keys that change together form one
axis: ``model.depth,optimizer.learning_rate=20:0.1,56:0.05`` has two points.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from resnet_flax import config as configs
from resnet_flax.errors import UserError
from resnet_flax.sweeps.cases import Case, Request
from resnet_flax.sweeps.ranges import integers

Point = dict[str, Any]  # values by config key
_FORM = "KEY=VALUE,VALUE,..., such as model.depth=20,56"


def axes(texts: Sequence[str], request: Request) -> list[list[Point]]:
    """Parses the axes of a grid (:func:`parse`) and checks that they fit together.

    Raises:
      UserError: A key is unknown or named twice, a value is of the wrong type, two keys contradict each other, or the
        values of a key do not make different runs.
    """
    grid = [parse(text) for text in texts]
    keys = keys_of(grid)
    repeated = {key for key in keys if keys.count(key) > 1}
    if repeated:
        raise UserError(
            f"--grid names {', '.join(sorted(repeated))} more than once; give all values of a key in one --grid"
        )
    for axis in grid:
        free = [key for key in axis[0] if key in configs.RESUME_MAY_CHANGE]
        if len({tuple(_without(point, free).items()) for point in axis}) < len({tuple(p.items()) for p in axis}):
            raise UserError(
                f"--grid {','.join(axis[0])}: {' and '.join(free)} may change on resume, so the values do not make "
                f"different runs, and only the first would be trained; start a sweep for each value, with a --workdir "
                f"of its own and --config.{free[0]}"
            )
    depths = {"model.depth", "model.stage_units"}
    if len(depths & {*keys, *request.overrides}) > 1:
        raise UserError(
            "model.stage_units takes the place of model.depth, so --grid and --config may set only one of the two"
        )
    return grid


def _without(point: Point, keys: Sequence[str]) -> Point:
    return {key: value for key, value in point.items() if key not in keys}


def keys_of(grid: Iterable[list[Point]]) -> list[str]:
    """Lists the keys of all axes, in order."""
    return [key for axis in grid for key in axis[0]]


def points(grid: Iterable[list[Point]]) -> list[Point]:
    """Returns the points of the grid: all combinations of the points of its axes."""
    return [{k: v for part in parts for k, v in part.items()} for parts in itertools.product(*grid)]


def case(point: Point, **fields: Any) -> Case:
    """Returns the case of a point. The unit name ``vgg`` becomes plain units in the vgg family."""
    if point.get("model.unit") == "vgg":
        point = point | {"model.unit": "plain", "model.family": "vgg"}
    return Case("", point, **fields)


def parse(text: str) -> list[Point]:
    """Parses one axis: ``model.depth=8,20`` becomes ``[{"model.depth": 8}, {"model.depth": 20}]``.

    Raises:
      UserError: The text is not an axis, a key is unknown, or a value is of the wrong type.
    """
    left, equals, right = text.partition("=")
    if not equals or not right:
        raise UserError(f"--grid {text!r} is not of the form {_FORM}")
    keys = left.split(",")
    for key in keys:
        if key not in configs.KEYS:
            raise UserError(f"--grid {text}: {configs.unknown_key(key, list(configs.KEYS))}")
        if key == "seed":
            raise UserError(f"--grid {text}: give seeds as --seeds={right}")
    values = _split(right)
    if len(keys) == 1:
        return [{left: value} for part in values for value in _parsed(text, configs.KEYS[left], part)]
    return [_tied(text, keys, part) for part in values]


def _tied(text: str, keys: Sequence[str], part: str) -> Point:
    """Parses one value for each of the keys that change together, such as ``20:0.1``."""
    values = part.split(":")
    if len(values) != len(keys):
        raise UserError(
            f"--grid {text}: {part!r} must hold a value for each of the {len(keys)} keys, separated by colons, such as "
            f"model.depth,optimizer.learning_rate=20:0.1,56:0.05"
        )
    found = {}
    for key, value in zip(keys, values, strict=True):
        read = _parsed(text, configs.KEYS[key], value)
        if len(read) != 1:
            raise UserError(f"--grid {text}: keys that change together take single values, and {value!r} is a range")
        found[key] = read[0]
    return found


def _split(values: str) -> list[str]:
    """Splits at commas outside of brackets, because a value may be a tuple such as ``(3,4,6)``."""
    parts, depth = [""], 0
    for character in values:
        depth += (character == "(") - (character == ")")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _parsed(text: str, key: configs.Key, value: str) -> list[Any]:
    try:
        return integers(value) if key.kind is int else [key.parse(value)]
    except UserError as error:
        raise UserError(f"--grid {text}: {error}") from None
    except (KeyError, ValueError):
        hint = "; only whole numbers have ranges" if ".." in value and key.kind is float else ""
        raise UserError(
            f"--grid {text}: {value!r} is not a value of {key.name}; it must be {key.wanted()}{hint}"
        ) from None
