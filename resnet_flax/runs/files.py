"""Reads and appends to files of a folder, which may be damaged or hostile; without jax."""

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
    """The files of a folder; what is read is compared with its checksum, and its shape is checked.

    Args:
      path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def content(self, name: str) -> bytes | None:
        """A file's bytes, as the run wrote them; None where there is no such file."""
        for last in (False, True):  # it may be replaced between the reading of the two
            found, content = checksums.read(self.path), self.read_unchecked(name)
            if checksums.matches(name, content, found):
                break
            if last:
                raise checksums.mismatch_error(self.path / name, content is not None)
        return content

    def lines(self, name: str, check: Callable[[Any], None]) -> list[_Line]:
        """The lines of a file, each a JSON object that ``check`` accepts; one that a crash cut short is left out."""
        found = []
        for number, text in enumerate((self.content(name) or b"").split(b"\n"), start=1):
            try:
                line = json.loads(text)
            except RecursionError as error:
                raise schemas.invalid_file(self.path / name, f"line {number}: {error}") from None
            except ValueError:
                continue  # a crash cut it short, and a later start went on behind it
            try:
                check(line)
            except (ValueError, TypeError) as error:
                raise schemas.invalid_file(self.path / name, f"line {number}: {error}") from None
            found.append(line)
        return found

    def object(self, name: str, check: Callable[[Any], None]) -> _Line | None:
        """The JSON object in a file, which ``check`` accepts; None where there is no such file."""
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
        """A file's bytes, whatever its checksum is; None where there is no such file."""
        path = self.path / name
        try:
            return read_bytes(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None

    def append(self, name: str, line: _Line) -> None:
        """Adds a line; not to the end of one that was cut short."""
        with open(self.path / name, "a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(json.dumps(line).encode() + b"\n")


def read_bytes(path: Path) -> bytes:
    """A file's bytes; anything else that may stand there, such as a pipe that nobody fills, is an OSError."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        return file.read()
