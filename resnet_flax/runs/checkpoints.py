"""Checkpoints with orbax: written in the background, whole or not at all; the last few kept, and the best.

A checkpoint holds named items, such as ``params``, ``opt_state`` and ``average``, which are restored by their names.
They lie in one folder: with a folder for each there were four times as many files, and saving held the steps up for
more than twice as long. Checkpoints of earlier commits are restored, too: those of 4cfe0ac have no checksums, and keep
the average in the optimizer's state.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging

from resnet_flax.errors import UserError
from resnet_flax.runs import array_checksums, checkpoint_folder, trees
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.file_names import CHECKPOINTS, DAMAGED, RECORD
from resnet_flax.runs.manager import ARRAYS, BEST, open_manager, validation_error_of
from resnet_flax.runtime.hosts import Hosts, is_lost_peer
from resnet_flax.runtime.libraries import quieten_orbax

_T = TypeVar("_T")
_Record = dict[str, Any]  # of RunDirectory.record
_Items = Mapping[str, Any]  # trees of arrays by name

quieten_orbax()

# What orbax writes in the background must not be the buffers that the next step is given to overwrite.
_copy = jax.jit(lambda items: jax.tree.map(jnp.copy, items))


class Checkpoints:
    """The checkpoints of a run; a context manager that waits for what is being written.

    Args:
      workdir: the run's folder.
      keep: how many of the last to keep.
      keep_best: whether to keep the one with the least validation error as well.
      read_only: for a look at a folder that another process may be writing to.
    """

    def __init__(self, workdir: Path, keep: int = 1, keep_best: bool = False, read_only: bool = False) -> None:
        self._workdir, self._keep_best, self._hosts = workdir, keep_best, Hosts()
        self._folder = (workdir / CHECKPOINTS).absolute()
        self._manager = open_manager(self._folder, keep, keep_best, read_only)
        self.last_saved: int | None = self._manager.latest_step()
        self.record: _Record | None = None  # of the checkpoint that was restored, where it has one

    def steps(self) -> list[int]:
        """The steps of the checkpoints there are, in order."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, items: _Items, validation_error: float | None = None, lines: Sequence[str] = ()) -> None:
        """Starts to write a checkpoint with its checksums; returns once the items and the lines have been copied.

        One without a validation error, where a signal stopped the run between two evaluations, is never the best.

        Args:
          lines: the texts of the run's metrics up to that step, which the checkpoint carries.

        Raises:
          UserError: this or the checkpoint before it could not be written (a full disk); those before that stay.
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
        """Restores the items of the newest checkpoint that can be read (or that of a step); None if there is none.

        One that cannot be read is named in a warning, and the one before it is tried.

        Args:
          like: shapes, dtypes and shardings: see :func:`~resnet_flax.training.state.abstract_state`.
          step: of the checkpoint; by default the newest.
          partly: items of which the checkpoint may hold other arrays than ``like``; those that it lacks are None.

        Raises:
          UserError: there are checkpoints, and none of them can be read; or they are of another network.
        """

        def read(step: int, there: _Items, record: _Record | None) -> dict[str, Any]:
            if differing := sorted((trees.nonempty_items(there) ^ trees.nonempty_items(like)) - set(partly)):
                raise ValueError(f"only one of the checkpoint and the run has {', '.join(differing)}")
            if record is not None and trees.shapes(there) != {
                name: (array["dtype"], tuple(array["shape"])) for name, array in record["arrays"].items()
            }:
                raise ValueError("the arrays that are there are not those of its record")
            whole = {name: tree for name, tree in like.items() if name not in partly}
            common = {name: trees.shared_arrays(there[name], like.get(name)) for name in partly if name in there}
            found = self._read(step, there, record, whole | common)
            return {name: found[name] for name in whole} | {
                name: trees.fill_template(like[name], found.get(name)) for name in partly if name in like
            }

        return self._newest(read, like, step)

    def restore_variables(self, like: _Items, step: int | None = None) -> dict[str, Any] | None:
        """Restores the network's variables to evaluate, of the newest checkpoint that can be read (or that of a step).

        ``params`` is their moving average where the checkpoint has one: beside them or, as commit 4cfe0ac and those
        before it wrote it, in the optimizer's state. The rest of that state is neither read nor checked.

        Args:
          like: shapes, dtypes and shardings: see :func:`~resnet_flax.training.state.abstract_variables`.
          step: of the checkpoint; by default the newest.

        Raises:
          UserError: there are checkpoints, and none of them can be read; or they are of another network.
        """

        def read(step: int, there: _Items, record: _Record | None) -> dict[str, Any]:
            # Where there is a record, it decides: it has a checksum, and the tree that orbax describes has none.
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
        """Reads items, and compares them with the record's checksums; the others are placeholders."""
        tree = jax.tree.map(lambda _: ocp.PLACEHOLDER, there) | wanted
        args = ocp.args.PyTreeRestore(tree, restore_args=ocp.checkpoint_utils.construct_restore_args(tree))
        found = self._manager.restore(step, args=ocp.args.Composite(**{ARRAYS: args}))[ARRAYS]
        self._check_sums(step, found, record)
        return found

    def _newest(self, read: Callable[[int, _Items, _Record | None], _T], like: _Items, step: int | None) -> _T | None:
        """Calls ``read`` on checkpoints, newest first, until it fails on no host; returns its result, or None."""
        candidates = self.steps()[::-1] if step is None else [step]
        for candidate in candidates:
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
                    raise  # that says nothing of the checkpoint
                failure = error
            # What one host cannot read, the others do not take either.
            if not self._hosts.any(failure is not None):
                self.record = record
                return found
            first_line = (str(failure).strip().splitlines() or [""])[0]
            reason = "on another host" if failure is None else f"{type(failure).__name__}: {first_line:.200}"
            logging.warning("checkpoint %d of %s cannot be read (%s)", candidate, self._folder, reason)
        if candidates:
            others = [s for s in self.steps() if s not in candidates]
            raise UserError(
                f"{self._folder}: none of its checkpoints ({', '.join(map(str, candidates))}) can be read; "
                f"the warnings above say why. "
                + (
                    f"There are others, of step {', '.join(map(str, others))}"
                    if others
                    else "To start anew, move the run's folder away"
                )
            )
        return None

    def _check_sums(self, step: int, found: dict[str, Any], record: _Record | None) -> None:
        if record is None:
            logging.warning(
                "checkpoint %d of %s has no checksums (an earlier version wrote it); it is read unchecked",
                step, self._folder,
            )  # fmt: skip
        elif changed := array_checksums.differences(found, record["arrays"]):
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise ValueError(f"the checksum of {changed[0]}{more} is not that of what was saved")

    def _check_shapes(self, there: _Items, like: _Items) -> None:
        """Refuses checkpoints of a network for another number of classes or channels: they are whole."""
        wanted = {name: leaf.shape for name, leaf in trees.names(like).items()}
        differing = [
            f"{name} is {tuple(leaf.shape)} there, {wanted[name]} here"
            for name, leaf in trees.names(there).items()
            if name.startswith("params/") and name in wanted and tuple(leaf.shape) != wanted[name]
        ]
        if differing:
            raise OtherNetwork(
                f"{self._folder}: its checkpoints are whole, and of a network for other data: "
                f"{'; '.join(differing[:2])}{' ...' if len(differing) > 2 else ''}. The number of classes is the last "
                f"dense layer's, that of channels the first convolution's; name the data that it was trained on"
            )

    def move_unreadable_after(self, step: int) -> None:
        """Moves checkpoints later than the step, which could not be read, out of the way of new ones."""
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
        self.last_saved = self._manager.latest_step()

    def best_step(self) -> int | None:
        """The step with the least validation error (the latest of several), if there is a validation split."""
        errors = {s: validation_error_of(self._manager.metrics(s) or {}) for s in self.steps()}
        measured = [s for s, error in errors.items() if error < math.inf]
        return min(measured, key=lambda s: (errors[s], -s), default=None)

    def find_step(self, wanted: str) -> int:
        """The step that a user names: a number, ``latest``, or ``best`` (by validation error).

        Raises:
          UserError: there is no such checkpoint; says which there are.
        """
        there = self.steps()
        if not there:
            reached = RunDirectory(self._workdir).last_logged_step()
            gone = f"; its metrics reach step {reached}, so its checkpoints are gone" if reached > 0 else " yet"
            raise UserError(f"--workdir={self._workdir}: the run has no checkpoint{gone}")
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
        with checkpoint_folder.report_failure(self._folder):
            self._manager.wait_until_finished()

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


class OtherNetwork(UserError):
    """A checkpoint holds a network of other shapes."""
