"""Checksums (SHA-256) of a run's files, kept in ``sums.json``, which reveal damaged, truncated and edited files.

A .jsonl file grows, so its checksum covers the bytes that it had when the checksum was written. A run of an earlier
version has no ``sums.json``, and its files are read unchecked.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from resnet_flax.atomic import write_atomically
from resnet_flax.errors import UserError

FILE = "sums.json"

# The files that have checksums. Only the process that holds the run's lock writes them.
NAMES = (
    "config.json", "preprocessing.json", "photographs.json", "starts.jsonl", "metrics.jsonl", "diverged.json",
    "interrupted.json",
)  # fmt: skip

_LENGTH = 64  # hexadecimal digits of a checksum


def of(content: bytes) -> str:
    """Returns the SHA-256 of some bytes as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def write(path: Path, text: str) -> None:
    """Replaces a file and its checksum. A crash in between leaves a file without a checksum, never a wrong one."""
    forget(path)
    write_atomically(path, text)
    note(path, text.encode())


def remove(path: Path) -> None:
    """Deletes a file and its checksum."""
    forget(path)
    path.unlink(missing_ok=True)


def forget(path: Path) -> None:
    """Removes the checksum of a file that is about to change."""
    found = read(path.parent) or {}
    if found.pop(path.name, None) is not None:
        _write(path.parent, found)


def note(path: Path, content: bytes) -> None:
    """Stores the checksum of a file with this content."""
    note_digest(path, len(content), of(content))


def note_digest(path: Path, size: int, digest: str) -> None:
    """Stores the checksum of the first ``size`` bytes of a file."""
    _write(path.parent, (read(path.parent) or {}) | {path.name: {"bytes": size, "sha256": digest}})


def read(folder: Path) -> dict[str, dict[str, Any]] | None:
    """Reads the checksums of a run directory, by file name; None if an earlier version wrote the run.

    Raises:
      UserError: ``sums.json`` is damaged.
    """
    path = folder / FILE
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(name in NAMES and _is_sum(entry) for name, entry in found.items()):
        raise UserError(f"{path}: is not what a run writes; delete it to have the run's files read unchecked")
    return found


def matches(name: str, content: bytes | None, found: dict[str, dict[str, Any]] | None) -> bool:
    """Whether a file's content is what the run wrote. A file without a checksum always matches.

    Args:
      name: The file's name.
      content: The file's bytes, or None if it does not exist.
      found: The checksums from :func:`read`.
    """
    entry = (found or {}).get(name)
    if entry is None:
        return True
    if content is None or len(content) < entry["bytes"]:
        return False
    if not name.endswith(".jsonl") and len(content) > entry["bytes"]:
        return False
    return of(content[: entry["bytes"]]) == entry["sha256"]


def mismatch_error(path: Path, is_there: bool = True) -> UserError:
    """Builds the error for a file that is not as the run wrote it."""
    what = "is not as the run wrote it (edited, or damaged)" if is_there else "is missing, and the run wrote it"
    return UserError(
        f"{path}: {what}, by its checksum in {FILE}; put it back, or delete {path.with_name(FILE)} to use the folder "
        f"as it is"
    )


def add_missing(folder: Path) -> bool:
    """Stores the checksums that are missing, as in a run of an earlier version.

    Returns:
      Whether the folder had files but no checksums at all.
    """
    found = read(folder)
    missing = [path for path in (folder / name for name in NAMES if name not in (found or {})) if path.is_file()]
    for path in missing:
        note(path, path.read_bytes())
    return found is None and bool(missing)


def _is_sum(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and entry.keys() == {"bytes", "sha256"}
        and type(entry["bytes"]) is int
        and isinstance(entry["sha256"], str)
        and len(entry["sha256"]) == _LENGTH
    )


def _write(folder: Path, found: dict[str, dict[str, Any]]) -> None:
    write_atomically(folder / FILE, json.dumps(found, indent=1) + "\n")
