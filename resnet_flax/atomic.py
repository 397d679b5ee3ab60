"""Replaces files whole: a crash leaves the old one or the new one, and several processes may write the same file."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields the path of a temporary file beside ``path``, which takes its place at the end; an error removes it.

    The name is another one for each writer: two that had the same would write into each other's file.
    """
    temporary = path.with_name(f".{path.name[:200]}-{secrets.token_hex(8)}.partial")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replaces a file by one with this content."""
    with replacing(path) as temporary, open(temporary, "xb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
