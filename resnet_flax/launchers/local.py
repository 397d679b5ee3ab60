"""Here, one run after the other, each on all devices."""

import sys
import time
from collections import deque
from collections.abc import Sequence

from resnet_flax.errors import Busy, Interrupted
from resnet_flax.launchers.attempt import attempt
from resnet_flax.launchers.pace import Pace
from resnet_flax.runtime.stopping import StopRequest
from resnet_flax.sweeps.cases import Run
from resnet_flax.sweeps.endings import Ending, earlier_failure


def launch(runs: Sequence[Run], endings: dict[int, Ending] | None = None) -> list[Ending]:
    """Runs them in order; returns what each ended as.

    Args:
      runs: all of them.
      endings: gets what each ended as, by its place, as soon as it has.

    Raises:
      Interrupted: a signal came; what was finished stays, and the same command goes on.
    """
    with StopRequest() as stop:  # one that comes in the last moments of a run is for the rest of them
        return _run_each(runs, stop, {} if endings is None else endings)


def _run_each(runs: Sequence[Run], stop: StopRequest, endings: dict[int, Ending]) -> list[Ending]:
    pace, left = Pace(), deque(enumerate(runs))
    busy = 0  # that many of the last ones another process was at
    while left:
        i, run = left.popleft()
        if busy > len(left):  # all that are left
            _wait(run, stop)
        if stop.received:
            raise Interrupted(f"stopped by {stop.received} before {run.name}; the same command goes on from there")
        rest = [run, *(other for _, other in left)]
        print(f"run {i + 1} of {len(runs)}: {run.name}{pace.left(rest)}", file=sys.stderr, flush=True)
        finished, start = run.is_finished, time.perf_counter()
        try:
            ending = earlier_failure(run.config, run.workdir) or attempt(run.config, run.workdir, run.tracking)
        except Busy:
            print(f"{run.name}: another process is at it; it is taken up again after the others", file=sys.stderr)
            left.append((i, run))
            busy += 1
            continue
        busy = 0
        if not finished:  # one that was says nothing of how long others take
            pace.add(run, time.perf_counter() - start)
        failure, reason = ending
        if failure:
            print(f"{run.name}: {failure}: {reason}", file=sys.stderr, flush=True)
        endings[i] = ending
    return [endings[i] for i in range(len(runs))]


def _wait(run: Run, stop: StopRequest) -> None:
    """Until the other process has let go of the run's folder, or a signal came."""
    print(f"{run.name}: waiting for the other process", file=sys.stderr, flush=True)
    run.directory.wait_until_free(-1, lambda: stop.received is not None)
