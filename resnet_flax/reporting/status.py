"""Shows the state of every run in a folder as a table for a terminal, during training and afterwards."""

import dataclasses
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_flax.escaping import escape_hidden
from resnet_flax.reporting import record
from resnet_flax.reporting.document import aligned
from resnet_flax.reporting.gather import RunFolder, gather
from resnet_flax.runs.file_names import is_run
from resnet_flax.runs.reading import State
from resnet_flax.runtime.progress import duration

HEADER = ("run", "state", "step", "images/s", "time left", "training error", "test error", "host")
UNREADABLE = "unreadable"  # the state of a run with a damaged file


@dataclasses.dataclass(frozen=True)
class Status:
    """The state of the runs in a folder. Its ``str`` is a table for a terminal.

    Attributes:
      rows: A row for each run, with the columns of :data:`HEADER`. Damaged ones come after those that can be read, and
        planned ones that have not begun come last.
      states: The state of each run in a word or two, in the same order.
      is_active: True if a run is running or has yet to begin.
    """

    rows: Sequence[tuple[str, ...]]
    states: Sequence[str]
    is_active: bool

    def __str__(self) -> str:
        counted = ", ".join(f"{count} {state}" for state, count in Counter(self.states).items())
        rows = [[escape_hidden(cell) for cell in row] for row in (HEADER, *self.rows)]
        table = aligned(rows, left={HEADER.index(title) for title in ("run", "state", "host")})
        return f"{table}\n{len(self.rows)} run{'s' * (len(self.rows) != 1)}: {counted}"


def read(folder: Path) -> Status:
    """Reads the state of the runs and plans in a folder, at any depth. Planned runs may be elsewhere.

    Raises:
      UserError: The folder does not exist, or holds neither runs nor plans.
    """
    planned = record.planned(folder)
    found = gather(folder, planned)
    damaged = [run for run in found.unreadable if is_run(run.path)]  # not those that were deleted
    root, there = folder.resolve(), {*(run.path for run in found.runs), *(run.path for run in damaged)}

    def name(path: Path) -> str:
        return Path(os.path.relpath(path, root)).as_posix()

    missing = [path for path in planned if path not in there]
    rows = [_row(run, name(run.path)) for run in found.runs]
    rows += [_short_row(name(run.path), f"{UNREADABLE}: {run.why}") for run in damaged]
    rows += [_short_row(name(path), State.NOT_BEGUN) for path in missing]
    states = [*(run.state for run in found.runs), *[UNREADABLE] * len(damaged), *[State.NOT_BEGUN] * len(missing)]
    return Status(rows, states, not {State.RUNNING, State.NOT_BEGUN}.isdisjoint(states))


def _row(run: RunFolder, name: str) -> tuple[str, ...]:
    last: Mapping[str, Any] = run.lines[-1] if run.lines else {}
    steps, rate = run.config.train.steps, last.get("images_per_second")
    running = run.state == State.RUNNING
    left = duration((steps - run.steps) * run.config.train.batch_size / rate) if running and rate else ""
    tested = next((line["test_error"] for line in reversed(run.lines) if line.get("test_error") is not None), None)
    state = run.state if running else run.status
    return (
        name, f"{state}: {run.reason}" if run.reason else state, f"{run.steps} of {steps}",
        f"{rate:.4g}" if rate else "", left, _percent(last.get("train_error")), _percent(tested),
        str(run.starts[-1].get("host", "")) if run.starts else "",
    )  # fmt: skip


def _short_row(name: str, state: str) -> tuple[str, ...]:
    return name, state, *[""] * (len(HEADER) - 2)


def _percent(error: float | None) -> str:
    return "" if error is None else f"{error:.2%}"
