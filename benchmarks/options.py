"""Flags that every benchmark has, and functions that print and write its table."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from resnet_flax.atomic import write_atomically
from resnet_flax.errors import UserError
from resnet_flax.paths import expanded
from resnet_flax.reporting import tables
from resnet_flax.reporting.record import command

OUTPUT = flags.DEFINE_string("output", None, "CSV file for the table, besides printing it; its folder is created.")
flags.register_validator(OUTPUT, lambda path: path is None or bool(expanded(path)))  # before anything is measured
ROUNDS = flags.DEFINE_integer("rounds", 5, "Number of measurements of each case, taken in turns.", lower_bound=1)


def numbers(flag: flags.FlagHolder, least: int = 1) -> list[int]:
    """Returns the values of a list flag as whole numbers of at least ``least``.

    Raises:
      UserError: A value is not such a number. The message names the flag.
    """
    given = f"--{flag.name}={','.join(flag.value)}"
    if not flag.value or not all(text.isdecimal() and int(text) >= least for text in flag.value):
        raise UserError(f"{given} must be whole numbers of at least {least}, separated by commas")
    return [int(text) for text in flag.value]


def choices(flag: flags.FlagHolder, known: Sequence[str], default: Sequence[str] = ()) -> list[str]:
    """Returns the values of a list flag, which must be among ``known``; the default if the flag is not given.

    Raises:
      UserError: A value is unknown. The message names the flag.
    """
    if flag.value is None:
        return list(default)
    unknown = [value for value in flag.value if value not in known]
    if unknown or not flag.value:
        raise UserError(f"--{flag.name}={','.join(flag.value)}: choose from {', '.join(known)}")
    return list(flag.value)


def print_and_write(header: Sequence[str], rows: Sequence[Sequence[str]], packages: Sequence[str] = ()) -> None:
    """Prints the table and where it was measured, and writes both to the file of ``--output``.

    The CSV begins with comment lines (``# key: value``): command, date, machine, versions, commit.

    Args:
      header: Names of the columns, with units.
      rows: Rows of text.
      packages: Packages that were measured as peers, whose versions are noted, too.
    """
    print(tables.to_markdown(header, rows))
    print("\n".join(f"{key}: {value}" for key, value in _measured_on(packages).items()))
    if OUTPUT.value:
        write(header, rows, packages)
        print(f"written: {expanded(OUTPUT.value)}", file=sys.stderr)


def write(header: Sequence[str], rows: Sequence[Sequence[str]], packages: Sequence[str] = ()) -> None:
    """Writes the table to the file of ``--output``, if it is given; see :func:`print_and_write` for the arguments."""
    if not OUTPUT.value:
        return
    path = expanded(OUTPUT.value)
    comments = "".join(f"# {key}: {json.dumps(value)}\n" for key, value in _measured_on(packages).items())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, comments + tables.to_csv(header, rows))
    except OSError as error:
        raise UserError(f"--output={path}: cannot be written: {error.strerror}") from None


def _measured_on(packages: Sequence[str]) -> dict[str, Any]:
    import datetime
    from importlib import metadata

    from resnet_flax.runtime.environment import environment  # imports jax, which takes seconds

    versions = {name: metadata.version(name) for name in packages}
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"command": command(), "date": date, **environment(), **versions}
