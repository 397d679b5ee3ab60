"""A registry: entries by name, to which a file of the user's own adds its own."""

import re
from collections.abc import Mapping
from typing import TypeVar

from resnet_flax.source_code import checksum

_T = TypeVar("_T")
# Names that config.json may hold, and any names.
NAME, DATA_NAME, ANY = r"[A-Za-z][A-Za-z0-9_]{0,50}", r"[A-Za-z0-9_][\w./+-]{0,199}", r"(?s).*"
_IN_WORDS = {
    NAME: "at most 51 letters, digits and _, with a letter first",
    DATA_NAME: "at most 200 letters, digits and . / + - _, with a letter, a digit or _ first",
}


class Registry(dict[str, _T]):
    """Entries by name. Those of the project cannot be replaced.

    A config names its entries, so a run with a replaced one would look like a run of the project's own.

    Args:
      kind: What an entry is, such as ``unit``, for messages.
      entries: The project's entries.
      names: A regular expression for names: :data:`NAME`, :data:`DATA_NAME` or :data:`ANY`.
    """

    def __init__(self, kind: str, entries: Mapping[str, _T] | None = None, names: str = NAME) -> None:
        super().__init__(entries or {})
        self._kind, self._names = kind, names
        self._checksums: dict[str, str] = {}
        self.reserve()

    def reserve(self, more: str = "") -> None:
        """Reserves the names so far, and those that match the regular expression ``more``."""
        self._reserved = re.compile("|".join([*map(re.escape, self), more]))

    def is_reserved(self, name: str) -> bool:
        """Tells whether a name is the project's, so that no file of the user's own defines it."""
        return bool(self._reserved.fullmatch(name))

    def __setitem__(self, name: str, entry: _T) -> None:
        if self.is_reserved(name):
            raise ValueError(f"{name!r} is reserved; choose another name for your {self._kind}")
        if not re.fullmatch(self._names, name):
            raise ValueError(f"{name!r} cannot be the name of your {self._kind}; choose {_IN_WORDS[self._names]}")
        super().__setitem__(name, entry)
        self._checksums[name] = checksum(entry)

    def checksum(self, name: str) -> str:
        """Returns the checksum of an entry's code when the entry was made: its file may have changed since."""
        return self._checksums.get(name) or checksum(self[name])
