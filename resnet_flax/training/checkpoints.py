"""Checkpoints with orbax: written in the background, whole or not at all; the last few kept, and the best."""

import contextlib
import dataclasses
import math
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint.checkpoint_managers import preservation_policy

from resnet_flax.errors import UserError
from resnet_flax.training.devices import is_loss, wait_for_all
from resnet_flax.training.state import State

FOLDER = "checkpoints"  # in a run's folder
DAMAGED = "damaged_checkpoints"  # beside it: those that could not be read
_T = TypeVar("_T")
_ITEM = "default"  # a checkpoint's folder in which the state lies
_BEST = "validation_error"  # chooses the best checkpoint; the test set never does

# Orbax prints, with its traceback, what made a thread of its fail; save and wait raise the same.
logging.get_absl_logger().addFilter(lambda record: not (record.exc_info and "orbax" in record.pathname))

# What orbax writes in the background must not be the buffers that the next step is given to overwrite.
_copy = jax.jit(lambda state: jax.tree.map(jnp.copy, state))


class Checkpoints:
    """The checkpoints of a run; a context manager that waits for what is being written.

    Args:
      workdir: the run's folder.
      keep: how many of the last to keep.
      keep_best: whether to keep the one with the least validation error as well.
      read_only: for a look at a folder that another process may be writing to.
    """

    def __init__(self, workdir: Path, keep: int = 1, keep_best: bool = False, read_only: bool = False) -> None:
        self._workdir, self._keep_best = workdir, keep_best
        policies = [preservation_policy.LatestN(keep)]
        if keep_best:
            policies.append(preservation_policy.BestN(get_metric_fn=_validation_error, reverse=True, n=1))
        with _errors_only() if read_only else contextlib.nullcontext():
            options = ocp.CheckpointManagerOptions(
                preservation_policy=preservation_policy.AnyPreservationPolicy(policies),
                # The policy decides what is kept; without a best_fn, orbax would not write the errors it decides by.
                best_fn=_validation_error if keep_best else None,
                best_mode="min",
                enable_async_checkpointing=True,
                read_only=read_only,
            )
            # The item is named, although it is the only one: else the newest checkpoint, be it damaged, would decide
            # how all of them are read.
            self._manager = _Manager((workdir / FOLDER).absolute(), options=options, item_names=(_ITEM,))
        self.last_saved: int | None = self._manager.latest_step()

    def steps(self) -> list[int]:
        """The steps of the checkpoints there are, in order."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: State, validation_error: float | None = None) -> None:
        """Starts to write a checkpoint; returns once the state has been copied.

        One without a validation error, where a signal stopped the run between two evaluations, is never the best.

        Raises:
          UserError: this or the checkpoint before it could not be written (a full disk); those before that stay.
        """
        if step == self.last_saved:
            return
        self._check_room(state)
        metrics = {_BEST: math.inf if validation_error is None else validation_error} if self._keep_best else None
        item = ocp.args.Composite(**{_ITEM: ocp.args.StandardSave(_items(_copy(state)))})
        with self._writing():
            self._manager.save(step, args=item, metrics=metrics, force=True)
        self.last_saved = step

    def restore(self, like: State, step: int | None = None) -> State | None:
        """The newest checkpoint that can be read (or that of a step); None if there is none at all.

        One that cannot be read is named in a warning, and the one before it is tried.

        Args:
          like: shapes, dtypes and shardings: see :func:`~resnet_flax.training.state.abstract_state`.
          step: of the checkpoint; by default the newest.

        Raises:
          UserError: there are checkpoints, and none of them can be read.
        """
        args = ocp.args.StandardRestore(_items(like))
        return self._newest(lambda at: State(**self._read(at, args)), step)

    def restore_variables(self, like: dict[str, Any], step: int | None = None) -> dict[str, Any] | None:
        """The network's variables to evaluate, of the newest checkpoint that can be read (or that of a step).

        ``params`` is their moving average where the checkpoint has one: beside them or, as commit 4cfe0ac and those
        before it wrote it, in the optimizer's state. The rest of that state is not read.

        Args:
          like: shapes, dtypes and shardings: see :func:`~resnet_flax.training.state.abstract_variables`.
          step: of the checkpoint; by default the newest.

        Raises:
          UserError: there are checkpoints, and none of them can be read.
        """
        return self._newest(lambda at: self._read_variables(at, like), step)

    def _read(self, step: int, args: Any) -> dict[str, Any]:
        return self._manager.restore(step, args=ocp.args.Composite(**{_ITEM: args}))[_ITEM]

    def _read_variables(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
        there = ocp.PyTreeCheckpointHandler().metadata(self._manager.directory / str(step) / _ITEM).tree
        wanted = jax.tree.map(lambda _: ocp.PLACEHOLDER, there)
        holder, name = wanted, "params"
        if "average" in there:
            name = "average"
        elif isinstance(there["opt_state"], list) and "average" in (there["opt_state"][-1] or ()):
            holder, name = wanted["opt_state"][-1], "average"
        holder[name] = like["params"]
        if like["batch_stats"]:
            wanted["batch_stats"] = like["batch_stats"]
        args = ocp.args.PyTreeRestore(wanted, restore_args=ocp.checkpoint_utils.construct_restore_args(wanted))
        found = self._read(step, args)
        holder = found if holder is wanted else found["opt_state"][-1]
        return {"params": holder[name], "batch_stats": found["batch_stats"] if like["batch_stats"] else {}}

    def _newest(self, read: Callable[[int], _T], step: int | None) -> _T | None:
        candidates = self.steps()[::-1] if step is None else [step]
        for candidate in candidates:
            try:
                return read(candidate)
            except Exception as error:  # whatever a damaged file makes orbax raise
                if is_loss(error) or "out of memory" in str(error).lower():
                    raise  # that says nothing of the checkpoint
                first_line = (str(error).strip().splitlines() or [""])[0]
                logging.warning(
                    "checkpoint %d of %s cannot be read (%s: %.200s)",
                    candidate, self._manager.directory, type(error).__name__, first_line,
                )  # fmt: skip
        if candidates:
            raise UserError(
                f"{self._manager.directory}: none of its checkpoints ({', '.join(map(str, candidates))}) can be read; "
                f"the warnings above say why. To start anew, move the run's folder away"
            )
        return None

    def set_aside_after(self, step: int) -> None:
        """Moves checkpoints later than the step, which could not be read, out of the way of new ones."""
        for later in [s for s in self.steps() if s > step]:
            if jax.process_index() == 0:
                target = self._workdir / DAMAGED / str(later)
                target.parent.mkdir(exist_ok=True)
                while target.exists():
                    target = target.with_name(target.name + "-again")
                (self._workdir / FOLDER / str(later)).rename(target)
                logging.warning("checkpoint %d was moved to %s", later, target)
        wait_for_all("checkpoints set aside")
        self._manager.reload()
        self.last_saved = self._manager.latest_step()

    def best_step(self) -> int | None:
        """The step with the least validation error (the latest of several), if there is a validation split."""
        errors = {s: _validation_error(self._manager.metrics(s) or {}) for s in self.steps()}
        measured = [s for s, error in errors.items() if error < math.inf]
        return min(measured, key=lambda s: (errors[s], -s), default=None)

    def choose(self, wanted: str) -> int:
        """The step that a user names: a number, ``latest``, or ``best`` (by validation error).

        Raises:
          UserError: there is no such checkpoint; says which there are.
        """
        there = self.steps()
        if not there:
            raise UserError(f"--workdir={self._workdir}: the run has no checkpoint yet")
        if wanted == "latest":
            return there[-1]
        if wanted == "best":
            best = self.best_step()
            if best is None:
                raise UserError("--step=best: the run has no validation split (data.validation=0) to choose by")
            return best
        if not wanted.isdecimal() or int(wanted) not in there:
            raise UserError(f"--step={wanted}: choose 'latest', 'best', or one of {', '.join(map(str, there))}")
        return int(wanted)

    def wait(self) -> None:
        """Returns when everything saved is on disk.

        Raises:
          UserError: it could not be written; the checkpoints before it stay.
        """
        with self._writing():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            text = (str(error).strip().splitlines() or [""])[0]
            disk = re.search(r"os_error_code=|RESOURCE_EXHAUSTED|DATA_LOSS", str(error))  # in TensorStore's
            if isinstance(error, ValueError) and not disk:
                raise
            reasons = re.findall(r": ([^:\n]+) \[os_error_code=", str(error))  # not always in its first line
            raise self._unwritten(reasons[-1] if reasons else f"{text:.200}") from None

    def _check_room(self, state: State) -> None:
        """Before it is begun, as far as that can be known: what fails in orbax's threads, they print in full."""
        if jax.process_index() > 0:
            return
        wanted, free = sum(leaf.nbytes for leaf in jax.tree.leaves(state)), shutil.disk_usage(self._workdir).free
        if wanted > free:
            raise self._unwritten(f"it takes {wanted / 2**20:.1f} MiB, and {free / 2**20:.1f} are free")

    def _unwritten(self, reason: str) -> UserError:
        whole = max((int(p.name) for p in (self._workdir / FOLDER).glob("*") if p.name.isdecimal()), default=None)
        kept = "there is none yet" if whole is None else f"the last whole one is of step {whole}"
        return UserError(
            f"{self._manager.directory}: a checkpoint cannot be written: {reason}; {kept}. With room there, the same "
            f"command goes on"
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *exception: object) -> None:
        if kind is KeyboardInterrupt:
            return  # of someone who will not wait
        try:
            self.wait()
        except UserError:
            if kind is None:
                raise  # else the first error has said it
        self._manager.close()


class _Manager(ocp.CheckpointManager):
    """Orbax's, which a checkpoint whose metrics are damaged does not keep from opening the folder."""

    def metrics(self, step: int) -> dict[str, float] | None:
        try:
            return super().metrics(step)
        except ValueError as error:  # not JSON, or not text
            logging.warning("the validation error of checkpoint %d cannot be read (%s)", step, error)
            return None


def _items(state: State) -> dict[str, Any]:
    """A state's parts by name, as they are saved; without the average where there is none."""
    parts = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {name: part for name, part in parts.items() if part is not None}


def _validation_error(metrics: dict[str, float]) -> float:
    return metrics.get(_BEST, math.inf)


@contextlib.contextmanager
def _errors_only() -> Iterator[None]:
    """Without the three warnings in which orbax says that a folder opened for reading is not written to."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def has_checkpoint(workdir: Path, step: int | None = None) -> bool:
    """Whether a whole checkpoint of that step (or of any) is there: orbax renames its folder when it is."""
    if step is None:
        return any(place.name.isdecimal() for place in (workdir / FOLDER).glob("*"))
    return (workdir / FOLDER / str(step)).is_dir()
