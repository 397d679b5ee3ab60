"""Writes files atomically: a crash leaves the old or the new file, and several processes may write the same one."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path``; on exit that file replaces ``path``, or is removed after an error.

    Every call yields a different name, so that concurrent writers do not write into the same temporary file.
    """
    temporary = path.with_name(f".{path.name[:200]}-{secrets.token_hex(8)}.partial")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes ``content`` to ``path``, atomically."""
    with replacing(path) as temporary, open(temporary, "xb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
