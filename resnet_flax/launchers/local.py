"""Executes runs on this machine one after the other, each on all devices."""

import sys
import time
from collections import deque
from collections.abc import Sequence

from resnet_flax.errors import Busy, Interrupted
from resnet_flax.launchers.attempt import attempt
from resnet_flax.launchers.pace import Pace
from resnet_flax.runtime.stopping import StopRequest
from resnet_flax.sweeps.cases import PlannedRun
from resnet_flax.sweeps.endings import Ending, earlier_failure


def launch(runs: Sequence[PlannedRun], endings: dict[int, Ending]) -> None:
    """Executes the runs in order.

    Args:
      endings: Receives the ending of each run by its index, as soon as the run has ended.

    Raises:
      Interrupted: A signal stopped the runs. The same command resumes them.
    """
    with StopRequest() as stop:  # A signal just after a run's last step must stop the remaining runs.
        _run_each(runs, stop, endings)


def _run_each(runs: Sequence[PlannedRun], stop: StopRequest, endings: dict[int, Ending]) -> None:
    pace, left = Pace(), deque(enumerate(runs))
    busy = 0  # the number of runs in a row that were busy
    while left:
        i, run = left.popleft()
        if busy > len(left):  # Other processes are training all remaining runs.
            _wait(run, stop)
        if stop.received:
            raise Interrupted(f"stopped by {stop.received} before {run.name}; the same command resumes from there")
        rest = [run, *(other for _, other in left)]
        print(f"run {i + 1} of {len(runs)}: {run.name}{pace.left(rest)}", file=sys.stderr, flush=True)
        finished, start = run.is_finished, time.perf_counter()
        try:
            ending = earlier_failure(run.config, run.workdir) or attempt(run.config, run.workdir, run.tracking)
        except Busy:
            print(f"{run.name}: another process is training it; trying again after the other runs", file=sys.stderr)
            left.append((i, run))
            busy += 1
            continue
        busy = 0
        if not finished:  # A run that was finished before gives no estimate of training time.
            pace.add(run, time.perf_counter() - start)
        failure, reason = ending
        if failure:
            print(f"{run.name}: {failure}: {reason}", file=sys.stderr, flush=True)
        endings[i] = ending


def _wait(run: PlannedRun, stop: StopRequest) -> None:
    """Waits until the other process has released the run directory, or a signal is received."""
    print(f"{run.name}: waiting for the other process", file=sys.stderr, flush=True)
    run.directory.wait_until_free(-1, lambda: stop.received is not None)
