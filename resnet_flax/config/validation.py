"""The refusal of configs that do not fit, before anything is compiled."""

import contextlib
from collections.abc import Collection, Iterator

from ml_collections import ConfigDict

from resnet_flax.config.key import holds, there
from resnet_flax.config.table import KEYS, flatten, unknown_key
from resnet_flax.errors import UnknownName, UserError


def validate(c: ConfigDict) -> None:
    """Refuses a config with an unknown or missing key, a wrong type, or a value that does not fit.

    Raises:
      UserError: one line: the key, what was given, what would fit.
    """
    with saying_module(c):
        _validate(c)


@contextlib.contextmanager
def saying_module(c: ConfigDict) -> Iterator[None]:
    """Adds to the refusal of an unknown name how it becomes known: by the file that a run's config says, or any."""
    try:
        yield
    except UnknownName as error:
        module = c.module if "module" in c else ""
        where = f"{module} defined it in training: --module={module}" if module else "--module=FILE if you define it"
        raise UserError(f"{error}; {where}") from None


def _validate(c: ConfigDict) -> None:
    given = flatten(c)
    for name in given:
        if name not in KEYS:
            raise UserError(unknown_key(name, list(KEYS)))
    # A value that is derived may not fit because its source does not, so sources come first.
    for name, key in sorted(KEYS.items(), key=lambda item: item[1].derived):
        if name not in given:
            raise UserError(f"config lacks the key {name!r} (start from resnet_flax.config.base())")
        key.check(given[name])
    for name, key in KEYS.items():
        if given[name] != key.default and not holds(key.only, given):
            raise UserError(f"{name}={given[name]!r} has no effect; set {key.only}")
    if c.train.steps * c.train.batch_size >= 2**32:
        raise UserError(
            f"train.steps={c.train.steps} times train.batch_size={c.train.batch_size} must be below 2**32 images"
        )
    if list(c.schedule.milestones) != sorted(set(c.schedule.milestones)):
        raise UserError(f"schedule.milestones={c.schedule.milestones} must grow")
    _check_data_and_network(c)


def names_in(text: str) -> tuple[str, ...]:
    """The names in a key that lists them: ``"cutout,grey"``."""
    return tuple(name for part in text.split(",") if (name := part.strip()))


def check_names(key: str, text: str, known: Collection[str]) -> None:
    """Refuses a key that lists a name that is not registered, or one twice.

    Raises:
      UserError: it says which are.
    """
    names = names_in(text)
    for name in names:
        if name not in known:
            raise UnknownName(f"{key}={text!r}: {name!r} is not known; choose of {', '.join(sorted(known))}")
        if names.count(name) > 1:
            raise UserError(f"{key}={text!r}: {name!r} is there twice")


def _check_data_and_network(c: ConfigDict) -> None:
    try:
        there("data.settings:check")(c.data)
        there("memory:check_network")(there("networks:build")(c.model, classes=1), c.model)
    except ValueError as error:
        raise UserError(str(error)) from None
