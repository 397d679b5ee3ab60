"""Reads files that may be damaged or hostile, and appends to them, without jax."""

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from resnet_flax.errors import UserError
from resnet_flax.runs import checksums, schemas

_Line = dict[str, Any]


class CheckedFiles:
    """The files of a folder. Every file that is read is compared with its checksum, and its structure is checked.

    Args:
      path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def content(self, name: str) -> bytes | None:
        """Reads a file and compares it with its checksum; returns None if it does not exist.

        Raises:
          UserError: The file cannot be read, or does not match its checksum.
        """
        for last in (False, True):  # a running process may replace the file between the two reads
            found, content = checksums.read(self.path), self.read_unchecked(name)
            if checksums.matches(name, content, found):
                break
            if last:
                raise checksums.mismatch_error(self.path / name, content is not None)
        return content

    def lines(self, name: str, check: Callable[[Any], None]) -> list[_Line]:
        """Reads a .jsonl file. A line that a crash cut short is left out.

        Args:
          name: The file's name.
          check: Raises a ValueError or TypeError for an object that is not as the run writes it.

        Raises:
          UserError: The file cannot be read, or ``check`` refuses a line.
        """
        found = []
        for number, text in enumerate((self.content(name) or b"").split(b"\n"), start=1):
            try:
                line = json.loads(text)
            except RecursionError as error:
                raise schemas.invalid_file(self.path / name, f"line {number}: {error}") from None
            except ValueError:
                continue  # a crash cut this line short, and a later start appended the next one
            try:
                check(line)
            except (ValueError, TypeError) as error:
                raise schemas.invalid_file(self.path / name, f"line {number}: {error}") from None
            found.append(line)
        return found

    def object(self, name: str, check: Callable[[Any], None]) -> _Line | None:
        """Reads a JSON file; returns None if it does not exist. See :meth:`lines` for the arguments."""
        content = self.content(name)
        if content is None:
            return None
        try:
            found = json.loads(content)
            check(found)
        except (ValueError, TypeError, RecursionError) as error:
            raise schemas.invalid_file(self.path / name, error) from None
        return found

    def read_unchecked(self, name: str) -> bytes | None:
        """Reads a file without comparing its checksum; returns None if it does not exist."""
        path = self.path / name
        try:
            return read_bytes(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None

    def append(self, name: str, line: _Line) -> None:
        """Appends a line to a .jsonl file and waits until it is on disk, so that a checksum never precedes it.

        If a crash cut the last line short, the new line starts below it.
        """
        with open(self.path / name, "a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def read_bytes(path: Path) -> bytes:
    """Reads a regular file. Anything else, such as a pipe, which could block for ever, raises an OSError."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return file.read()
