"""One key of a config: its type, its bounds and when it has an effect."""

import dataclasses
import importlib
import math
from collections.abc import Mapping
from typing import Any, Literal

from resnet_flax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Key:
    """One row of the table of keys (table.py). Whatever else is said of a key is made from its row.

    Attributes:
      name: dotted, such as ``train.steps``.
      default: the value that :func:`~resnet_flax.config.base` gives it; its type is the key's, None that of a number
        which follows from other keys until it is set.
      meaning: a phrase for ``--help`` and docs/config.md.
      choices: the texts that it may be; or where a registry of them is, ``MODULE:NAME`` within ``resnet_flax``.
      least: the least number that it may be.
      most: the greatest one.
      above: a bound that is itself no value.
      below: likewise.
      when: the condition (:func:`holds`) under which it has an effect; else it is ignored.
      only: the condition without which any value but the default is refused.
      derived: whether a file in ``configs/`` derives it from other keys.
      resume: whether it has to be the same when a run resumes.
      protocol: whether a run with another value is trained by another protocol; not where results do not depend on it,
        or only in their rounding, nor for the seed, over which a spread is taken.
      phrase: how a report says that a run differs in it from a recipe. Braces take the run's value, then the recipe's;
        a pair is what to say of True and of False.
      word: what figures call it; by default its name's last part, with spaces.
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
        """The type of its values."""
        return float if self.default is None else type(self.default)

    @property
    def words(self) -> str:
        """Its name for a figure: ``weight decay`` of ``optimizer.weight_decay``."""
        return self.word or self.name.rpartition(".")[2].replace("_", " ")

    def names(self) -> tuple[str, ...]:
        """Lists the choices; a registry is imported for it, often with jax."""
        return tuple(there(self.choices)) if isinstance(self.choices, str) else self.choices

    def check(self, value: Any) -> None:
        """Refuses a value of another type, outside of the bounds, or none of the choices."""
        self.check_type(value)
        if self.choices and value != self.default and value not in self.names():
            raise UserError(f"{self.name}={value!r} is not known; choose one of {', '.join(self.names())}")
        if value is not None and not self._within(value):
            raise UserError(f"{self.name}={value} must be {self.bounds()}")

    def check_type(self, value: Any) -> None:
        """Refuses a value of another type."""
        if not self._is_of_its_type(value):
            raise UserError(f"{self.name}={value!r} is of type {type(value).__name__}; it must be {self.wanted()}")

    def parse(self, text: str) -> Any:
        """Reads a value of the key's type from a command line; KeyError or ValueError where it is none."""
        if self.default is None and text.lower() == "none":
            return None
        if self.kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if self.kind is tuple:
            return tuple(int(part) for part in text.strip("()").split(",") if part)
        return self.kind(text)

    def wanted(self) -> str:
        """Says in words what type it is of."""
        if self.default is None:
            return "a float, or None"
        if self.kind is tuple:
            return "a tuple of positive int, such as (2, 3)"
        kind = self.kind.__name__
        return f"{'an' if kind == 'int' else 'a'} {kind}" + (f", such as {self.default}" if self.default != "" else "")

    def bounds(self) -> str:
        """Says in words which numbers it may be: ``at least 1``, ``in [0, 1)``; "" for any."""
        low = self.above if self.least is None else self.least
        high = self.below if self.most is None else self.most
        if low is not None and high is not None:
            return f"in {'(' if self.least is None else '['}{low}, {high}{')' if self.most is None else ']'}"
        return "" if low is None else f"{'above' if self.least is None else 'at least'} {low}"

    def applies(self, values: Mapping[str, Any]) -> bool:
        """Says whether it has an effect where the others, by dotted key, have these values."""
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
    """Says whether values by dotted key meet a condition; "" is always met.

    A condition is ``KEY=A|B`` (it is one of these), ``KEY!=A|B`` (it is none of these) or ``KEY`` (it is neither 0 nor
    empty), or several of them joined by ``and``. One of a key that is not there is met.
    """
    return all(_holds(part, values) for part in condition.split(" and ") if part)


def _holds(condition: str, values: Mapping[str, Any]) -> bool:
    key, equals, choices = condition.partition("=")
    name = key.removesuffix("!")
    if name not in values:
        return True
    return (str(values[name]) in choices.split("|")) != key.endswith("!") if equals else bool(values[name])


def there(place: str) -> Any:
    """Imports ``MODULE:NAME`` within ``resnet_flax``, and returns it.

    Configs are read without jax, and the rooms that know networks and data read configs.
    """
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"resnet_flax.{module}"), name)
