"""Saves and restores checkpoints with orbax: asynchronously and atomically; keeps the last few and the best.

A checkpoint holds named items, such as ``params``, ``opt_state`` and ``average``, which are restored by name. All items
share one folder: a folder for each item meant four times as many files, and blocked training more than twice as long.
Checkpoints of earlier commits can be restored, too: those of 4cfe0ac have no checksums, and keep the average in the
optimizer's state.
"""

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging

from resnet_flax.errors import UserError, first_line
from resnet_flax.runs import array_checksums, checkpoint_folder, trees
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.file_names import CHECKPOINTS, DAMAGED, RECORD
from resnet_flax.runs.manager import ARRAYS, BEST, open_manager, validation_error_of
from resnet_flax.runtime.hosts import Hosts, is_lost_peer
from resnet_flax.runtime.libraries import quieten_orbax

_T = TypeVar("_T")
_Record = dict[str, Any]  # the result of RunDirectory.record
_Items = Mapping[str, Any]  # trees of arrays by name

_SEEN_SECONDS = 5.0  # for a checkpoint to appear on all hosts

quieten_orbax()

# The next step donates the state's buffers, while orbax still writes in the background. So orbax gets a copy.
_copy = jax.jit(lambda items: jax.tree.map(jnp.copy, items))


class Checkpoints:
    """The checkpoints of a run. As a context manager, waits at its end for a checkpoint that is being written.

    Attributes:
      last_saved: The step of the newest checkpoint, or None.
      record: The record of the restored checkpoint; None before a restore, or if the checkpoint has no record.

    Args:
      workdir: The run directory.
      keep: The number of newest checkpoints to keep.
      keep_best: Whether to keep the one with the lowest validation error, too.
      read_only: Whether to change nothing, because another process may be writing.
    """

    def __init__(self, workdir: Path, keep: int = 1, keep_best: bool = False, read_only: bool = False) -> None:
        self._workdir, self._keep_best, self._hosts = workdir, keep_best, Hosts()
        self._folder = (workdir / CHECKPOINTS).absolute()
        self._manager = open_manager(self._folder, keep, keep_best, read_only)
        self.last_saved: int | None = self._manager.latest_step()
        self.record: _Record | None = None

    def steps(self) -> list[int]:
        """Lists the steps of the checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, items: _Items, validation_error: float | None = None, lines: Sequence[str] = ()) -> None:
        """Starts to write a checkpoint with its checksums; returns as soon as the items and the lines are copied.

        Args:
          validation_error: The validation error at the step; None if a signal stopped the run between two evaluations.
            Such a checkpoint is never the best.
          lines: The lines of the run's metrics up to the step, to store in the checkpoint's record.

        Raises:
          UserError: This checkpoint or the previous one could not be written, such as on a full disk. Earlier ones are
            kept.
        """
        if step == self.last_saved:
            return
        if self._hosts.first:
            checkpoint_folder.check_room(self._folder, sum(leaf.nbytes for leaf in jax.tree.leaves(items)))
        metrics = {BEST: math.inf if validation_error is None else validation_error} if self._keep_best else None
        saved = _copy(dict(items))
        record = array_checksums.RecordSave(step, saved, tuple(lines), validation_error)
        args = ocp.args.Composite(**{ARRAYS: ocp.args.PyTreeSave(saved), RECORD: record})
        with checkpoint_folder.report_failure(self._folder):
            self._manager.save(step, args=args, metrics=metrics, force=True)
        self.last_saved = step

    def restore(self, like: _Items, step: int | None = None, partly: Collection[str] = ()) -> dict[str, Any] | None:
        """Restores the items of the newest readable checkpoint, or of the one at a step; None if there is none.

        A checkpoint that cannot be read causes a warning, and the previous one is tried.

        Args:
          like: The tree of shapes, dtypes and shardings from :func:`~resnet_flax.training.state.abstract_state`.
          step: The checkpoint's step; None for the newest.
          partly: The items whose arrays may differ between the checkpoint and ``like``. Arrays that the checkpoint
            lacks are None in the result.

        Raises:
          UserError: There are checkpoints, but none can be read, or they are of another network.
        """

        def read(step: int, there: _Items, record: _Record | None) -> dict[str, Any]:
            if differing := sorted((trees.nonempty_items(there) ^ trees.nonempty_items(like)) - set(partly)):
                raise ValueError(f"only one of the checkpoint and the run has {', '.join(differing)}")
            if record is not None and trees.shapes(there) != {
                name: (array["dtype"], tuple(array["shape"])) for name, array in record["arrays"].items()
            }:
                raise ValueError("its arrays are not those of its record")
            whole = {name: tree for name, tree in like.items() if name not in partly}
            common = {name: trees.shared_arrays(there[name], like.get(name)) for name in partly if name in there}
            found = self._read(step, there, record, whole | common)
            return {name: found[name] for name in whole} | {
                name: trees.fill_template(like[name], found.get(name)) for name in partly if name in like
            }

        return self._newest(read, like, step)

    def restore_variables(self, like: _Items, step: int | None = None) -> dict[str, Any] | None:
        """Restores the variables for evaluation from the newest readable checkpoint, or from the one at a step.

        ``params`` is the moving average of the parameters if the checkpoint has one. Commit 4cfe0ac and earlier ones
        keep it in the optimizer's state. The rest of that state is neither read nor checked.

        Args:
          like: The tree of shapes, dtypes and shardings from :func:`~resnet_flax.training.state.abstract_variables`.
          step: The checkpoint's step; None for the newest.

        Raises:
          UserError: There are checkpoints, but none can be read, or they are of another network.
        """

        def read(step: int, there: _Items, record: _Record | None) -> dict[str, Any]:
            # The record's names are preferred, because it has a checksum, and orbax's description has none.
            names = there if record is None else {array.partition("/")[0] for array in record["arrays"]}
            wanted = {"batch_stats": like["batch_stats"]} if like["batch_stats"] else {}
            if "average" in names:
                found = self._read(step, there, record, wanted | {"average": like["params"]})
                params = found["average"]
            elif isinstance(there["opt_state"], list) and "average" in (there["opt_state"][-1] or ()):
                before = jax.tree.map(lambda _: ocp.PLACEHOLDER, there["opt_state"])
                last = before[-1] | {"average": like["params"]}
                found = self._read(step, there, record, wanted | {"opt_state": [*before[:-1], last]})
                params = found["opt_state"][-1]["average"]
            else:
                found = self._read(step, there, record, wanted | {"params": like["params"]})
                params = found["params"]
            return {"params": params, "batch_stats": found["batch_stats"] if like["batch_stats"] else {}}

        return self._newest(read, like, step)

    def _read(self, step: int, there: _Items, record: _Record | None, wanted: _Items) -> dict[str, Any]:
        """Reads the wanted items and compares them with the record's checksums; other items become placeholders."""
        tree = jax.tree.map(lambda _: ocp.PLACEHOLDER, there) | wanted
        args = ocp.args.PyTreeRestore(tree, restore_args=ocp.checkpoint_utils.construct_restore_args(tree))
        found = self._manager.restore(step, args=ocp.args.Composite(**{ARRAYS: args}))[ARRAYS]
        self._check_sums(step, found, record)
        return found

    def _newest(self, read: Callable[[int, _Items, _Record | None], _T], like: _Items, step: int | None) -> _T | None:
        """Calls ``read`` for checkpoints, newest first, until it succeeds on all hosts; returns its result, or None."""
        candidates = self._hosts.from_first(self.steps()[::-1]) if step is None else [step]
        for candidate in candidates:
            self._wait_until_seen(candidate)
            found = record = failure = None
            try:
                # Shapes and dtypes, as orbax describes them.
                path = self._folder / str(candidate) / ARRAYS
                there = ocp.PyTreeCheckpointHandler().metadata(path).tree
                self._check_shapes(there, like)
                record = RunDirectory(self._workdir).record(candidate)
                found = read(candidate, there, record)
            except OtherNetwork:
                raise
            except Exception as error:  # whatever a damaged file makes orbax raise
                if is_lost_peer(error) or "out of memory" in str(error).lower():
                    raise  # such an error does not mean that the checkpoint is damaged
                failure = error
            # All hosts must restore the same checkpoint, so one that fails on any host is skipped by all.
            if not self._hosts.any(failure is not None):
                self.record = record
                return found
            reason = "on another host" if failure is None else f"{type(failure).__name__}: {first_line(failure):.200}"
            logging.warning("checkpoint %d of %s cannot be read (%s)", candidate, self._folder, reason)
        if candidates:
            others = [s for s in self.steps() if s not in candidates]
            raise UserError(
                f"{self._folder}: none of its checkpoints ({', '.join(map(str, candidates))}) can be read; "
                f"the warnings above say why. "
                + (
                    f"There are others, of step {', '.join(map(str, others))}"
                    if others
                    else "To restart, move the run directory away"
                )
            )
        return None

    def _wait_until_seen(self, step: int) -> None:
        """Waits some seconds for a checkpoint that a network file system shows to the first host before this one."""
        deadline = time.monotonic() + _SEEN_SECONDS
        while not self._hosts.first and not (self._folder / str(step)).is_dir() and time.monotonic() < deadline:
            time.sleep(0.2)

    def _check_sums(self, step: int, found: dict[str, Any], record: _Record | None) -> None:
        if record is None:
            logging.warning(
                "checkpoint %d of %s has no checksums (an earlier version wrote it); it is read unchecked",
                step, self._folder,
            )  # fmt: skip
        elif changed := array_checksums.differences(found, record["arrays"]):
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise ValueError(f"the checksum of {changed[0]}{more} is not the saved one")

    def _check_shapes(self, there: _Items, like: _Items) -> None:
        """Refuses checkpoints of a network for another number of classes or channels, which are not damaged."""
        wanted = {name: leaf.shape for name, leaf in trees.names(like).items()}
        differing = [
            f"{name} is {tuple(leaf.shape)} there, {wanted[name]} now"
            for name, leaf in trees.names(there).items()
            if name.startswith("params/") and name in wanted and tuple(leaf.shape) != wanted[name]
        ]
        if differing:
            raise OtherNetwork(
                f"{self._folder}: its checkpoints are not damaged, but of a network for other data: "
                f"{'; '.join(differing[:2])}{' ...' if len(differing) > 2 else ''}. The last dense layer depends on "
                f"the classes, the first convolution on the channels; name the data that the run was trained on"
            )

    def move_unreadable_after(self, step: int) -> None:
        """Moves the checkpoints after a step, which could not be read, to another folder, so that new ones fit in."""
        for later in [s for s in self.steps() if s > step]:
            if self._hosts.first:
                target = self._workdir / DAMAGED / str(later)
                target.parent.mkdir(exist_ok=True)
                while target.exists():
                    target = target.with_name(target.name + "-again")
                (self._folder / str(later)).rename(target)
                logging.warning("checkpoint %d was moved to %s", later, target)
        self._hosts.wait("checkpoints set aside")
        self._manager.reload()
        # The first host's: a host that believes another one skips a save for which the others wait.
        self.last_saved = max(self._hosts.from_first(self.steps()), default=None)

    def best_step(self) -> int | None:
        """Returns the step with the lowest validation error (the latest of several), or None without such an error."""
        errors = {s: validation_error_of(self._manager.metrics(s) or {}) for s in self.steps()}
        measured = [s for s, error in errors.items() if error < math.inf]
        return min(measured, key=lambda s: (errors[s], -s), default=None)

    def find_step(self, wanted: str) -> int:
        """Returns the step that a user names.

        Args:
          wanted: A step, ``latest``, or ``best`` (by validation error).

        Raises:
          UserError: There is no such checkpoint; the message lists those that exist.
        """
        there = self.steps()
        if not there:
            logged = RunDirectory(self._workdir).last_logged_step()
            reached = f"; its metrics reach step {logged}" if logged > 0 else " yet"
            raise UserError(f"--workdir={self._workdir}: the run has no complete checkpoint{reached}")
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
        """Waits until every saved checkpoint is on disk.

        Raises:
          UserError: A checkpoint could not be written; earlier ones are kept.
        """
        with checkpoint_folder.report_failure(self._folder):
            self._manager.wait_until_finished()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *exception: object) -> None:
        if kind is KeyboardInterrupt:
            return  # the user pressed Ctrl-C again and does not want to wait
        try:
            self.wait()
        except UserError:
            if kind is None:
                raise  # otherwise the exception that is already raised has priority
        finally:
            self._manager.close()


class OtherNetwork(UserError):
    """A checkpoint holds a network whose parameters have other shapes."""
