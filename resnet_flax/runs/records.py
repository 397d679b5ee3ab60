"""Reads a checkpoint's record without jax: checksums of its arrays, and the metrics up to its step.

The record has a checksum of its own. :mod:`~.array_checksums` writes it as an item of the checkpoint.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resnet_flax.errors import UserError
from resnet_flax.runs import checksums, schemas
from resnet_flax.runs.files import read_bytes

_FILE = "record.json"


def read_record(item: Path, step: int) -> dict[str, Any] | None:
    """Reads the record of a checkpoint.

    Args:
      item: The record's folder in the checkpoint.
      step: The checkpoint's step.

    Returns:
      A dict with ``step``, ``arrays`` (checksums by name), ``lines`` (the lines of the metrics up to the step) and
      ``validation_error``; None if an earlier version wrote the checkpoint.

    Raises:
      UserError: The record is damaged, or of another step.
    """
    path = record_path(item)
    if not path.parent.exists():
        return None
    try:
        found = json.loads(read_bytes(path))
        if found["sha256"] != _sum_of(found["record"]):
            raise ValueError("its checksum differs")
        if found["record"]["step"] != step:
            raise ValueError(f"it is of step {found['record']['step']}")
        return found["record"]
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise schemas.invalid_file(path, error) from None


def record_text(record: Mapping[str, Any]) -> str:
    """Formats the content of a record's file, with the record's checksum, for :func:`read_record`."""
    return json.dumps({"sha256": _sum_of(record), "record": record})


def record_path(item: Any) -> Any:
    """Returns the path of the record's file in its folder."""
    return item / _FILE


def _sum_of(record: Any) -> str:
    return checksums.of(json.dumps(record, sort_keys=True).encode())
