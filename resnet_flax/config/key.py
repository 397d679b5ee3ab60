"""The row that describes one config key: its type, bounds and conditions, and the checks of its values."""

import dataclasses
import importlib
import math
from collections.abc import Mapping
from typing import Any, Literal

from resnet_flax.errors import UnknownName, UserError


@dataclasses.dataclass(frozen=True)
class Key:
    """One row of the table of keys (table.py), from which help, documentation, checks and reports are made.

    Attributes:
      name: The dotted name, such as ``train.steps``.
      default: The value in :func:`~resnet_flax.config.base`. Its type is the key's type. None stands for a float that
        is derived from other keys until the user sets it.
      meaning: A phrase for ``--help`` and docs/config.md.
      choices: The allowed strings; or ``MODULE:NAME`` within ``resnet_flax``, a registry whose names are allowed.
      least: The smallest allowed number.
      most: The largest allowed number.
      above: A lower bound that is itself not allowed.
      below: An upper bound that is itself not allowed.
      when: The condition (:func:`holds`) under which the key has an effect; otherwise its value is ignored.
      only: The condition under which the key may be set; otherwise any value but the default is refused.
      derived: Whether a file in ``configs/`` derives the key from other keys.
      resume: Whether a run may resume with another value.
      protocol: Whether another value makes the training protocol another one, which reports mention. False for keys
        that change results at most by rounding, and for the seed, because results are averaged over seeds.
      phrase: How a report says that a run differs from a recipe in this key. Its braces take the run's value, then the
        recipe's. Boolean keys have a pair of phrases, for True and for False.
      word: The key's name in figures; by default the last part of ``name``, with spaces.
    """

    name: str
    default: Any
    meaning: str
    choices: tuple[str, ...] | str = ()
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    when: str = ""
    only: str = ""
    derived: bool = False
    resume: Literal["same", "may grow", "may change"] = "same"
    protocol: bool = True
    phrase: str | tuple[str, str] = ""
    word: str = ""

    @property
    def kind(self) -> type:
        """The type of the key's values."""
        return float if self.default is None else type(self.default)

    @property
    def words(self) -> str:
        """The key's name in figures, such as ``weight decay`` for ``optimizer.weight_decay``."""
        return self.word or self.name.rpartition(".")[2].replace("_", " ")

    def names(self) -> tuple[str, ...]:
        """Lists the choices; importing a registry for this often imports jax."""
        return tuple(import_named(self.choices)) if isinstance(self.choices, str) else self.choices

    def check(self, value: Any) -> None:
        """Refuses a value that has the wrong type, is out of bounds, or is not one of the choices."""
        self.check_type(value)
        if self.choices and value != self.default and value not in self.names():
            kind = UnknownName if isinstance(self.choices, str) else UserError
            raise kind(f"{self.name}={value!r} is not known; choose one of {', '.join(self.names())}")
        if value is not None and not self._within(value):
            raise UserError(f"{self.name}={value} must be {self.bounds()}")

    def check_type(self, value: Any) -> None:
        """Refuses a value of the wrong type."""
        if not self._is_of_its_type(value):
            raise UserError(f"{self.name}={value!r} is of type {type(value).__name__}; it must be {self.wanted()}")

    def parse(self, text: str) -> Any:
        """Parses a value from a command line; raises KeyError or ValueError if it is not of the key's type."""
        if self.default is None and text.lower() == "none":
            return None
        if self.kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if self.kind is tuple:
            return tuple(int(part) for part in text.strip("()").split(",") if part)
        return self.kind(text)

    def wanted(self) -> str:
        """Returns the key's type in words, with an example."""
        if self.default is None:
            return "a float, or None"
        if self.kind is tuple:
            return "a tuple of positive int, such as (2, 3)"
        kind = self.kind.__name__
        return f"{'an' if kind == 'int' else 'a'} {kind}" + (f", such as {self.default}" if self.default != "" else "")

    def bounds(self) -> str:
        """Returns the bounds in words: ``at least 1``, ``in [0, 1)``; "" if there are none."""
        low = self.above if self.least is None else self.least
        high = self.below if self.most is None else self.most
        if low is not None and high is not None:
            return f"in {'(' if self.least is None else '['}{low}, {high}{')' if self.most is None else ']'}"
        return "" if low is None else f"{'above' if self.least is None else 'at least'} {low}"

    def applies(self, values: Mapping[str, Any]) -> bool:
        """Tells whether the key has an effect, given the values of all keys by dotted name."""
        return holds(self.when, values)

    def _within(self, value: Any) -> bool:
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def _is_of_its_type(self, value: Any) -> bool:
        if value is None:
            return self.default is None
        if self.kind is tuple:
            return isinstance(value, tuple | list) and all(type(v) is int and v > 0 for v in value)
        if isinstance(value, bool):
            return self.kind is bool
        if self.kind is float:
            return isinstance(value, int | float) and math.isfinite(value)
        return isinstance(value, self.kind)


def holds(condition: str, values: Mapping[str, Any]) -> bool:
    """Tells whether values by dotted key meet a condition; the empty condition is always met.

    A condition is ``KEY=A|B`` (the value is A or B), ``KEY!=A|B`` (it is neither) or ``KEY`` (it is neither 0 nor
    empty), or several of these joined by ``and``. A condition on a key that ``values`` lacks is met.
    """
    return all(_holds(part, values) for part in condition.split(" and ") if part)


def _holds(condition: str, values: Mapping[str, Any]) -> bool:
    key, equals, choices = condition.partition("=")
    name = key.removesuffix("!")
    if name not in values:
        return True
    return (str(values[name]) in choices.split("|")) != key.endswith("!") if equals else bool(values[name])


def import_named(reference: str) -> Any:
    """Imports and returns ``MODULE:NAME`` within ``resnet_flax``.

    An import statement would import jax, which reading a config must not wait for, and would be circular: the modules
    of networks and data import this package.
    """
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(f"resnet_flax.{module}"), name)
