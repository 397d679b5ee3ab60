"""Checksums (SHA-256) of a run's files, in ``sums.json`` beside them: what was flipped, cut or edited is noticed.

The files keep their form. A file of lines grows, so the sum is that of its first bytes, as many as there were. A run of
an earlier version has no ``sums.json``: its files are read unchecked.
"""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from resnet_flax.atomic import write_atomically
from resnet_flax.errors import UserError

FILE = "sums.json"

# The files that have sums. All of them are written by one process, which holds the run's lock.
NAMES = (
    "config.json", "preprocessing.json", "photographs.json", "starts.jsonl", "metrics.jsonl", "diverged.json",
    "interrupted.json",
)  # fmt: skip

_LENGTH = 64  # hexadecimal digits of a sum


def of(content: bytes) -> str:
    """SHA-256 as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def write(path: Path, text: str) -> None:
    """Replaces a file of a run's folder and its sum; a crash in between leaves the file without a sum."""
    forget(path)
    write_atomically(path, text)
    note(path, text.encode())


def remove(path: Path) -> None:
    """Deletes a file of a run's folder, and its sum."""
    forget(path)
    path.unlink(missing_ok=True)


def forget(path: Path) -> None:
    """Removes the sum of a file that is about to change."""
    found = read(path.parent) or {}
    if found.pop(path.name, None) is not None:
        _write(path.parent, found)


def note(path: Path, content: bytes) -> None:
    """Keeps the sum of a file, which holds that content now."""
    note_digest(path, len(content), of(content))


def note_digest(path: Path, size: int, digest: str) -> None:
    """Keeps a sum that is known: of the first ``size`` bytes of the file."""
    _write(path.parent, (read(path.parent) or {}) | {path.name: {"bytes": size, "sha256": digest}})


def read(folder: Path) -> dict[str, dict[str, Any]] | None:
    """The sums of a run's folder by the names of its files; None where an earlier version wrote the run.

    Raises:
      UserError: the file of the sums is damaged.
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
        raise UserError(f"{path}: is not what a run writes; without it (delete it), files are read unchecked")
    return found


def matches(name: str, content: bytes | None, found: dict[str, dict[str, Any]] | None) -> bool:
    """Whether a file's content (None where there is no such file) is what the run wrote; True where no sum is known.

    Args:
      found: of :func:`read`.
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
        f"{path}: {what}, by its checksum in {FILE}; put it back, or delete {path.with_name(FILE)} to take the folder "
        f"as it is"
    )


def add_missing(folder: Path, names: Collection[str] = NAMES) -> bool:
    """Keeps the sums of files that have none yet, as in a run that an earlier version began; tells if it had none."""
    found = read(folder)
    missing = [path for path in (folder / name for name in names if name not in (found or {})) if path.is_file()]
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
