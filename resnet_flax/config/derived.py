"""Values that follow from others: rules that config files give, and what :func:`resolve` settles."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ml_collections import ConfigDict, config_dict

from resnet_flax.config.key import there
from resnet_flax.config.own_code import defining
from resnet_flax.config.table import KEYS, flatten
from resnet_flax.config.validation import validate


class _Rule(NamedTuple):
    """An operation of a ``FieldReference``; ml_collections copies its arguments with the config."""

    fn: Callable[..., Any]
    args: tuple[config_dict.FieldReference, ...]


def follow(c: ConfigDict, key: str, rule: Callable[..., Any], *sources: str) -> None:
    """Derives a key from others, ``rule(*their values)``, until somebody sets it: the rule sees what the user sets.

    Args:
      key: dotted, such as ``train.bn_group``.
      rule: a function of the values of the sources. Where they have no sense, such as a batch of 0 images, it may
        raise an ArithmeticError: the key then keeps its value, and :func:`validate` refuses the source.
      sources: dotted keys.
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
    default = section[name]  # of the key's type
    with section.ignore_type():  # of the section alone: it walks through all that it is called on
        section[name] = config_dict.FieldReference(default, op=_Rule(derived, tuple(references)))


def milestones(*steps: int) -> tuple[int, ...]:
    """Returns these steps as ``schedule.milestones`` has to have them: growing, each once, none of them 0."""
    return tuple(sorted({step for step in steps if step > 0}))


def resolve(c: ConfigDict) -> ConfigDict:
    """Validates a config, and copies it with numbers for the values that follow from others, as config.json has it.

    Raises:
      UserError: see :func:`validate`.
    """
    validate(c)
    c = c.copy_and_resolve_references()
    with c.unlocked():
        for key in KEYS.values():
            if key.kind is tuple:
                section, _, name = key.name.rpartition(".")
                c[section][name] = tuple(c[section][name])
        if c.model.stage_units:
            c.model.depth = there("networks:depth_of")(c.model.family, c.model.block, c.model.stage_units)
        # Of gated units alone, so that one command line can hold for the runs of other units, too.
        if not there("networks.units:UNITS")[c.model.unit].gated:
            c.model.gate_bias = None
        elif c.model.gate_bias is None:
            c.model.gate_bias = there("networks.highway:gate_bias")(c.model.depth)
        if c.data.folder:
            c.data.name = "folder"
        if c.schedule.name == "cosine" and not c.schedule.decay_steps:
            c.schedule.decay_steps = c.train.steps
        c.module = defining(flatten(c)) or c.module
    return c


def unresolved(c: ConfigDict) -> ConfigDict:
    """Lets values follow others again where they are what :func:`resolve` made of these; returns the config."""
    if c.schedule.name == "cosine" and c.schedule.decay_steps == c.train.steps:
        c.schedule.decay_steps = 0
    if c.model.gate_bias == there("networks.highway:gate_bias")(c.model.depth):
        c.model.gate_bias = None
    return c
