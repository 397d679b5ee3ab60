"""Opens orbax's manager of a run's checkpoints, which keeps the last few and the best."""

import contextlib
import math
from pathlib import Path

import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint.checkpoint_managers import preservation_policy

from resnet_flax.runs.checkpoint_folder import check_folder
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.file_names import RECORD
from resnet_flax.runtime.libraries import errors_only

ARRAYS = "default"  # in a checkpoint: the arrays of all items
BEST = "validation_error"  # chooses the best checkpoint; the test set never does


def open_manager(folder: Path, keep: int, keep_best: bool, read_only: bool) -> ocp.CheckpointManager:
    """Opens a folder of checkpoints; see :class:`~resnet_flax.runs.checkpoints.Checkpoints`.

    Args:
      folder: absolute.

    Raises:
      UserError: the folder cannot be used; it says why.
    """
    check_folder(folder, read_only)
    policies = [preservation_policy.LatestN(keep)]
    if keep_best:
        policies.append(preservation_policy.BestN(get_metric_fn=validation_error_of, reverse=True, n=1))
    with errors_only() if read_only else contextlib.nullcontext():
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy(policies),
            # The policy decides what is kept; without a best_fn, orbax would not write the errors it decides by.
            best_fn=validation_error_of if keep_best else None,
            best_mode="min",
            enable_async_checkpointing=True,
            read_only=read_only,
        )
        # They are named: else the newest checkpoint, be it damaged, would decide how all of them are read.
        return _Manager(folder, options=options, item_names=(ARRAYS, RECORD))


def validation_error_of(metrics: dict[str, float]) -> float:
    """Returns the validation error of a checkpoint's metrics; infinity where it was not measured."""
    return metrics.get(BEST, math.inf)


class _Manager(ocp.CheckpointManager):
    """Orbax's, which a checkpoint whose metrics are damaged does not keep from opening the folder."""

    def metrics(self, step: int) -> dict[str, float] | None:
        try:
            found = super().metrics(step)
            if found is None:
                return None
            record = RunDirectory(Path(self.directory).parent).record(step)
            if record is None:
                return {BEST: float(found[BEST])}
            saved = record["validation_error"]
            saved = math.inf if saved is None else saved
            if found != {BEST: saved}:
                logging.warning("the validation error of checkpoint %d is not that which was saved, %g", step, saved)
            return {BEST: saved}
        # Not JSON, not text, of another form.
        except (ValueError, TypeError, KeyError, RecursionError, OSError) as error:
            logging.warning("the validation error of checkpoint %d cannot be read (%s)", step, error)
            return None
