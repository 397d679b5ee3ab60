"""Values that are derived from other keys, by rules in config files and by :func:`resolve`."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ml_collections import ConfigDict, config_dict

from resnet_flax.config.key import import_named
from resnet_flax.config.own_code import recorded_files
from resnet_flax.config.table import KEYS, flatten
from resnet_flax.config.validation import validate


class _Rule(NamedTuple):
    """The operation of a ``FieldReference``; a tuple, so that ml_collections copies its arguments with the config."""

    fn: Callable[..., Any]
    args: tuple[config_dict.FieldReference, ...]


def follow(c: ConfigDict, key: str, rule: Callable[..., Any], *sources: str) -> None:
    """Derives a key from other keys until the user sets it. The rule sees the values that the user gives the others.

    Args:
      key: The dotted name of the derived key, such as ``train.bn_group``.
      rule: A function of the values of ``sources``. It may raise an ArithmeticError for values without meaning, such
        as a batch of 0 images: the key then keeps its value, and :func:`validate` refuses the source.
      sources: The dotted names of the keys that ``rule`` reads.
    """

    def section_and_name(dotted: str) -> tuple[ConfigDict, str]:
        section, _, name = dotted.rpartition(".")
        return c[section], name

    def derived(default: Any, *values: Any) -> Any:
        try:
            return rule(*values)
        except ArithmeticError:
            return default

    references = [section.get_ref(name) for section, name in map(section_and_name, sources)]
    section, name = section_and_name(key)
    default = section[name]
    with section.ignore_type():  # not on the whole config: ignore_type walks through everything below it
        section[name] = config_dict.FieldReference(default, op=_Rule(derived, tuple(references)))


def milestones(*steps: int) -> tuple[int, ...]:
    """Returns the steps in the form of ``schedule.milestones``: positive, increasing, without duplicates."""
    return tuple(sorted({step for step in steps if step > 0}))


def resolve(c: ConfigDict) -> ConfigDict:
    """Validates a config and returns a copy with all derived values computed, which is what config.json holds.

    Raises:
      UserError: see :func:`validate`.
    """
    validate(c)
    c = c.copy_and_resolve_references()
    with c.unlocked():
        for key in KEYS.values():
            section, _, name = key.name.rpartition(".")
            if key.kind is tuple:
                c[section][name] = tuple(c[section][name])
            elif key.kind is float and isinstance(c[section][name], int):  # derived by a function that returns 0 or 1
                with c[section].ignore_type():
                    c[section][name] = float(c[section][name])
        if c.model.stage_units:
            c.model.depth = import_named("networks:depth_of")(c.model.family, c.model.block, c.model.stage_units)
        # Reset for units without gates, so that one command line with a gate_bias serves the runs of all units.
        if not import_named("networks.units:UNITS")[c.model.unit].gated:
            c.model.gate_bias = None
        elif c.model.gate_bias is None:
            c.model.gate_bias = import_named("networks.highway:gate_bias")(c.model.depth)
        if c.data.folder:
            c.data.name = "folder"
        if _decays(c) and not c.schedule.decay_steps:
            c.schedule.decay_steps = c.train.steps
        c.module = recorded_files(flatten(c))
    return c


def unresolved(c: ConfigDict) -> ConfigDict:
    """Undoes :func:`resolve` in place for values that equal the derived ones, so that they are derived again."""
    if _decays(c) and c.schedule.decay_steps == c.train.steps:
        c.schedule.decay_steps = 0
    if c.model.gate_bias == import_named("networks.highway:gate_bias")(c.model.depth):
        c.model.gate_bias = None
    return c


def _decays(c: ConfigDict) -> bool:
    """Tells whether the schedule, which may be the user's own, ends at ``schedule.decay_steps``."""
    return KEYS["schedule.decay_steps"].applies(flatten(c))
