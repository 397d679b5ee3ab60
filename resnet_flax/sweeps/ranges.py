"""Parses whole numbers and ranges of them in flags: ``20``, ``0..4``, and with a step ``8..56:6``."""

import re

from resnet_flax.errors import UserError

_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?::(-?\d+))?")
_MOST = 10_000  # the largest number of values in a range


def integers(text: str) -> list[int]:
    """Parses a whole number, or a range ``FIRST..LAST`` or ``FIRST..LAST:STEP``, which includes both ends.

    Raises:
      UserError: The range is empty or too long, or its steps miss its last number.
      ValueError: The text is neither a number nor a range.
    """
    found = _RANGE.fullmatch(text.strip())
    if not found:
        return [int(text)]
    first, last, step = int(found[1]), int(found[2]), int(found[3] or 1)
    if step < 1 or last < first:
        raise UserError(
            f"{text}: a range goes up from its first number to its last, in steps of at least 1, such as 8..56:6"
        )
    if (last - first) // step >= _MOST:
        raise UserError(f"{text}: a range may hold at most {_MOST:,} numbers")
    if (last - first) % step:
        raise UserError(f"{text}: steps of {step} from {first} miss {last}; write "
                        f"{first}..{last - (last - first) % step}:{step}")  # fmt: skip
    return list(range(first, last + 1, step))
