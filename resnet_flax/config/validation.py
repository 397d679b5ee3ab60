"""Validation of configs, before anything is compiled."""

import contextlib
import shlex
from collections.abc import Collection, Iterator, Sequence

from ml_collections import ConfigDict

from resnet_flax.config.key import holds, import_named
from resnet_flax.config.suggestions import unknown_key
from resnet_flax.config.table import KEYS, flatten
from resnet_flax.errors import UnknownName, UserError


def validate(c: ConfigDict) -> None:
    """Refuses a config with an unknown or missing key, a wrong type, or a value that is not allowed.

    Raises:
      UserError: One line with the key, the given value and the allowed values.
    """
    with hint_at_module(c):
        _validate(c)


@contextlib.contextmanager
def hint_at_module(c: ConfigDict) -> Iterator[None]:
    """Adds a hint to errors about unknown names: ``--module`` with the file that defined the name in training."""
    try:
        yield
    except UnknownName as error:
        raise UserError(f"{error}; {where_defined(c) or '--module=FILE if you define it'}") from None


def where_defined(c: ConfigDict) -> str:
    """Returns a clause that names the files which defined names of a config in training; "" if it records none."""
    files = names_in(c.module if "module" in c else "")
    pasted = " --module=".join(map(shlex.quote, files))
    return f"{' or '.join(files)} defined it in training: --module={pasted}" if files else ""


def _validate(c: ConfigDict) -> None:
    given = flatten(c)
    for name in given:
        if name not in KEYS:
            raise UserError(unknown_key(name, list(KEYS)))
    # Derived keys come last: if a source is wrong, the error should name the source.
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
        raise UserError(f"schedule.milestones={c.schedule.milestones} must be increasing")
    _check_data_and_network(c)


def without_effect(keys: Collection[str], configs: Sequence[ConfigDict]) -> list[str]:
    """Returns a remark for each key that has no effect in any of the configs.

    Args:
      keys: Dotted keys that the user has set.
      configs: The resolved configs of all runs.
    """
    values = [flatten(c) for c in configs]
    return [
        f"{name} has no effect here: it is used with {KEYS[name].when}"
        for name in sorted(KEYS.keys() & keys)
        if values and not any(KEYS[name].applies(found) for found in values)
    ]


def names_in(text: str) -> tuple[str, ...]:
    """Splits the value of a key that lists names, such as ``"cutout,grey"``."""
    return tuple(name for part in text.split(",") if (name := part.strip()))


def check_names(key: str, text: str, known: Collection[str]) -> None:
    """Refuses a list of names that has an unregistered name or a duplicate.

    Raises:
      UserError: The message lists the registered names.
    """
    names = names_in(text)
    for name in names:
        if name not in known:
            raise UnknownName(f"{key}={text!r}: {name!r} is not known; choose from {', '.join(sorted(known))}")
        if names.count(name) > 1:
            raise UserError(f"{key}={text!r}: {name!r} is listed twice")


def _check_data_and_network(c: ConfigDict) -> None:
    try:
        import_named("data.checks:check")(c.data)
        import_named("memory:check_network")(import_named("networks:build")(c.model, classes=1), c.model)
    except ValueError as error:
        raise UserError(str(error)) from None
