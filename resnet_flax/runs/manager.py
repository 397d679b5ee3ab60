"""Opens orbax's checkpoint manager for a run, which keeps the newest checkpoints and the best."""

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

ARRAYS = "default"  # the name of orbax's item that holds all arrays
BEST = "validation_error"  # the metric that selects the best checkpoint; the test error never does


def open_manager(folder: Path, keep: int, keep_best: bool, read_only: bool) -> ocp.CheckpointManager:
    """Opens a folder of checkpoints; see :class:`~resnet_flax.runs.checkpoints.Checkpoints` for the arguments.

    Args:
      folder: The folder, as an absolute path.

    Raises:
      UserError: The folder cannot be read or written.
    """
    check_folder(folder, read_only)
    policies = [preservation_policy.LatestN(keep)]
    if keep_best:
        policies.append(preservation_policy.BestN(get_metric_fn=validation_error_of, reverse=True, n=1))
    with errors_only() if read_only else contextlib.nullcontext():
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy(policies),
            # The policy decides which checkpoints are kept, but orbax writes the validation errors only with a best_fn.
            best_fn=validation_error_of if keep_best else None,
            best_mode="min",
            enable_async_checkpointing=True,
            read_only=read_only,
        )
        # Without the items' names, orbax derives them from the newest checkpoint, which may be damaged.
        return _Manager(folder, options=options, item_names=(ARRAYS, RECORD))


def validation_error_of(metrics: dict[str, float]) -> float:
    """Returns the validation error in a checkpoint's metrics; infinity if it was not measured."""
    return metrics.get(BEST, math.inf)


class _Manager(ocp.CheckpointManager):
    """Orbax's manager, except that a checkpoint with damaged metrics only causes a warning."""

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
                logging.warning("the validation error of checkpoint %d is not the saved one, %g", step, saved)
            return {BEST: saved}
        # Damaged content raises any of these, depending on whether it is text, JSON, or JSON of another structure.
        except (ValueError, TypeError, KeyError, RecursionError, OSError) as error:
            logging.warning("the validation error of checkpoint %d cannot be read (%s)", step, error)
            return None
