"""Checksums (SHA-256) of a checkpoint's arrays: computed in the background while saving, and compared on restore.

They are part of an item of the checkpoint, the record, so that the rename that completes the checkpoint commits both.
The record also holds the run's metrics up to that step. :func:`resnet_flax.runs.records.read_record` reads it without
jax.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from resnet_flax.runs import trees
from resnet_flax.runs.records import record_path, record_text


def of_tree(tree: Any) -> dict[str, dict[str, Any]]:
    """Computes dtype, shape and SHA-256 of every array that this host holds completely, by name."""
    return {name: _of_array(np.asarray(leaf)) for name, leaf in _leaves(tree).items()}


def differences(tree: Any, saved: dict[str, dict[str, Any]]) -> list[str]:
    """Lists the arrays that differ from the saved ones, among those that were read and that this host holds completely.

    Args:
      tree: The restored arrays, with orbax's placeholders for arrays that were not read.
      saved: The result of :func:`of_tree` for the saved arrays.
    """
    return [name for name, found in of_tree(tree).items() if saved.get(name) != found]


def _leaves(tree: Any) -> dict[str, Any]:
    read = {name: leaf for name, leaf in trees.names(tree).items() if leaf is not ocp.PLACEHOLDER}
    return {name: local for name, leaf in read.items() if (local := _local(leaf)) is not None}


def _local(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return leaf
    return leaf.addressable_data(0) if leaf.is_fully_replicated else None


def _of_array(array: np.ndarray) -> dict[str, Any]:
    digest = hashlib.sha256(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"").hexdigest()
    return {"dtype": str(array.dtype), "shape": list(array.shape), "sha256": digest}


class _Handler(ocp.AsyncCheckpointHandler):
    """Writes the record; orbax calls it in a background thread."""

    async def async_save(self, directory: Any, args: "RecordSave") -> list[ocp.future.Future]:
        return [ocp.future.CommitFutureAwaitingContractedSignals(self._write(directory, args), name="record_save")]

    async def _write(self, directory: Any, args: "RecordSave") -> None:
        if jax.process_index() == 0:
            record = {
                "step": args.step, "validation_error": args.validation_error, "arrays": of_tree(args.tree),
                "lines": list(args.lines),
            }  # fmt: skip
            Path(record_path(directory)).write_text(record_text(record))

    def save(self, *args: Any, **keys: Any) -> None:
        raise NotImplementedError("the record is only saved asynchronously")

    def restore(self, *args: Any, **keys: Any) -> None:
        raise NotImplementedError("records.read_record reads the record, without orbax")


@ocp.args.register_with_handler(_Handler, for_save=True, for_restore=True)
@dataclasses.dataclass
class RecordSave(ocp.args.CheckpointArgs):
    """Arguments of orbax for saving the record.

    Attributes:
      step: The checkpoint's step.
      tree: The arrays of the checkpoint; their buffers must not be donated before the save ends.
      lines: The lines of the run's metrics up to the step.
      validation_error: The validation error at the step, or None.
    """

    step: int
    tree: Any
    lines: Sequence[str]
    validation_error: float | None
