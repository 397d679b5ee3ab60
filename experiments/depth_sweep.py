"""Any grid over config keys, and the error against depth with error bars over seeds.

python -m experiments.depth_sweep --workdir=runs/depth --grid model.depth=8,20,56 --grid model.unit=plain,residual

Every --grid names a config key and its values; all combinations are run, with every seed. The rest of the network is
that of --config=FILE:NAME. By default depths 8, 20, 32 and 56 of plain and residual networks with seeds 0 and 1. Lines
of the figure are the combinations of whatever varies beside depth.
"""

import itertools
from typing import Any

from absl import flags
from ml_collections import config_flags

from experiments import options
from resnet_flax import command
from resnet_flax import config as configs
from resnet_flax.errors import UserError

_GRID = flags.DEFINE_multi_string(
    "grid", ["model.depth=8,20,32,56", "model.unit=plain,residual"], "KEY=VALUE,VALUE,... of the config."
)
flags.set_default(options.SEEDS, ["0", "1"])


def main() -> None:
    """Runs the grid, then draws the final errors against depth and the curves."""
    from experiments import curves, error_bars, sweep
    from experiments.record import Record

    keys, cases = _cases()
    outcomes = sweep.run(cases)
    if outcomes is None:
        return

    def line(outcome: Any) -> str:
        flat = configs.flatten(outcome.run.config)
        rest = [k for k in keys if k not in ("model.depth", "model.unit")]
        unit = configs.name_of(outcome.run.config.model).partition("-")[0]
        return " ".join([unit, *(f"{k.rpartition('.')[2]}={flat[k]}" for k in rest)])

    data, folder = outcomes[0].run.config.data.name, options.workdir()
    figures = [
        error_bars.against_depth(outcomes, folder / "depth.png", f"{data}: error against depth", line),
        curves.draw(outcomes, folder / "curves.png", f"{data}: the runs behind it", panel=line),
    ]
    record = Record(
        experiment="depth_sweep",
        title="Error against depth",
        question=f"How do the errors change over the grid {'; '.join(_GRID.value)}? (arXiv:1512.03385, section 4.2)",
        published=("cifar10_table6", "cifar10_plain"),
    )
    sweep.finish(outcomes, record, figures)


def _cases() -> tuple[list[str], list[Any]]:
    from experiments.runs import Case

    grid = [_parse(text) for text in _GRID.value]
    keys = [key for key, _ in grid]
    repeated = {key for key in keys if keys.count(key) > 1}
    if repeated:
        raise UserError(
            f"--grid names {', '.join(sorted(repeated))} more than once; give all of its values in one --grid"
        )
    fixed = config_flags.get_override_values(flags.FLAGS[options.CONFIG.name])
    depths = {"model.depth", "model.stage_units"}
    if len(depths & {*keys, *fixed}) > 1:
        raise UserError(
            "model.stage_units takes the place of model.depth, so --grid and --config may set only one of the two"
        )
    points = (dict(zip(keys, values, strict=True)) for values in itertools.product(*(values for _, values in grid)))
    return keys, [Case("", _as_family(point)) for point in points]


def _as_family(point: dict[str, Any]) -> dict[str, Any]:
    """The unit ``vgg`` of names as the config has it: plain units of that family."""
    if point.get("model.unit") != "vgg":
        return point
    return point | {"model.unit": "plain", "model.family": "vgg"}


def _parse(text: str) -> tuple[str, list[Any]]:
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


if __name__ == "__main__":
    command.run(main, uses_devices=True)
