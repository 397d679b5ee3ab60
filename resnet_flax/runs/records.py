"""A checkpoint's record: checksums of its arrays, and the metrics up to its step, with its own checksum; without jax.

:mod:`~.array_checksums` writes it as an item of the checkpoint.
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
    """Reads the record of the checkpoint of a step; None in a checkpoint that an earlier version wrote.

    ``arrays`` (sums by name), ``lines`` (the texts of the metrics up to its step), ``validation_error``.

    Args:
      item: the item's folder in the checkpoint.

    Raises:
      UserError: it is damaged, or of another step.
    """
    path = record_path(item)
    if not path.parent.exists():
        return None
    try:
        found = json.loads(read_bytes(path))
        if found["sha256"] != _sum_of(found["record"]):
            raise ValueError("its checksum is another")
        if found["record"]["step"] != step:
            raise ValueError(f"it is of step {found['record']['step']}")
        return found["record"]
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise schemas.invalid_file(path, error) from None


def record_text(record: Mapping[str, Any]) -> str:
    """The content of a checkpoint's record, with its own sum; :func:`read_record` reads it."""
    return json.dumps({"sha256": _sum_of(record), "record": record})


def record_path(item: Any) -> Any:
    """The place of a checkpoint's record in the item's folder."""
    return item / _FILE


def _sum_of(record: Any) -> str:
    return checksums.of(json.dumps(record, sort_keys=True).encode())
