"""Here, one run after the other, each on all devices."""

import sys
import time
from collections.abc import Sequence

from experiments.launchers.attempt import Ending, attempt, earlier_failure, is_finished
from experiments.launchers.pace import Pace
from experiments.runs import Run
from resnet_flax.errors import Interrupted
from resnet_flax.training.stopping import StopRequest


def launch(runs: Sequence[Run]) -> list[Ending]:
    """Runs them in order; returns what each ended as.

    Raises:
      UserError: the user's mistake, in one of them.
      Interrupted: a signal came; what was finished stays, and the same command goes on.
    """
    with StopRequest() as stop:  # one that comes in the last moments of a run is for the rest of them
        return _in_order(runs, stop)


def _in_order(runs: Sequence[Run], stop: StopRequest) -> list[Ending]:
    endings, pace = [], Pace()
    for i, run in enumerate(runs):
        if stop.received:
            raise Interrupted(f"stopped by {stop.received} before {run.name}; the same command goes on from there")
        print(f"run {i + 1} of {len(runs)}: {run.name}{pace.left(runs[i:])}", file=sys.stderr, flush=True)
        finished, start = is_finished(run.config, run.workdir), time.perf_counter()
        ending = earlier_failure(run.config, run.workdir) or attempt(run.config, run.workdir)
        if not finished:  # one that was says nothing of how long others take
            pace.add(run, time.perf_counter() - start)
        failure, reason = ending
        if failure:
            print(f"{run.name}: {failure}: {reason}", file=sys.stderr, flush=True)
        endings.append(ending)
    return endings
