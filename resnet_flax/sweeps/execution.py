"""Executes a list of runs: skips finished ones, resumes interrupted ones and notes failures; or only reads outcomes."""

import sys
from collections.abc import Sequence

import jax

from resnet_flax.errors import Diverged, Failed, Interrupted, UserError
from resnet_flax.launchers import local, ray
from resnet_flax.runs import resume
from resnet_flax.runs.reading import State
from resnet_flax.sweeps.cases import Outcome, PlannedRun, Request
from resnet_flax.sweeps.endings import Ending, earlier_failure
from resnet_flax.training.readiness import Readiness


class Stopped(Interrupted):
    """A signal stopped the runs before all had ended.

    Attributes:
      outcomes: The outcomes of all runs so far.
    """

    def __init__(self, message: str, outcomes: Sequence[Outcome]) -> None:
        super().__init__(message)
        self.outcomes = outcomes


def execute(runs: Sequence[PlannedRun], request: Request, announcement: str = "") -> list[Outcome]:
    """Executes the runs with the requested launcher. A run that diverges, fails or crashes does not stop the others.

    A run that diverged before is not repeated, because it would diverge again. One that failed or crashed is retried.

    Args:
      announcement: Lines that are printed once all checks have passed, before the first run.

    Returns:
      The outcomes, in the order of the runs.

    Raises:
      UserError: This process has joined others, or some runs cannot start. It names all of them and is raised before
        the first run starts.
      Stopped: A signal stopped the runs. The same command resumes them.
    """
    if jax.distributed.is_initialized():
        raise UserError(
            "each run of a sweep has its own process; leave out --distributed and --coordinator. train.py trains a run "
            "on several hosts"
        )
    _check(runs, request)
    endings: dict[int, Ending] = {}
    try:
        if request.launcher == "ray":
            ray.launch(runs, request.runs, request.cluster, endings, announcement)
        else:
            if announcement:
                print(announcement, file=sys.stderr, flush=True)
            local.launch(runs, endings)
    except Interrupted as signal:
        so_far = [outcome(run, *endings[i]) if i in endings else read_outcome(run) for i, run in enumerate(runs)]
        raise Stopped(str(signal), so_far) from None
    return [outcome(run, *endings[i]) for i, run in enumerate(runs)]


def read_outcomes(runs: Sequence[PlannedRun]) -> list[Outcome]:
    """Returns the outcomes of the runs so far, as read from their directories, without executing anything.

    Raises:
      UserError: A directory holds another run, or cannot be read.
    """
    for run in runs:
        resume.check_config(run.directory, run.config)
    return [read_outcome(run) for run in runs]


def read_outcome(run: PlannedRun) -> Outcome:
    """Returns the outcome of a run so far, as read from its directory, without executing anything."""
    now = run.directory.status(run.directory.repaired_metrics()[0], run.config.train.steps)
    if now.state == State.FINISHED:
        return outcome(run)
    if earlier := earlier_failure(run.config, run.workdir):
        return outcome(run, *earlier)
    if now.state in (State.NOT_BEGUN, State.RUNNING, State.CRASHED):
        return outcome(run, now.state, now.reason)
    return outcome(run, State.INTERRUPTED)


def _check(runs: Sequence[PlannedRun], request: Request) -> None:
    """Raises a UserError that names every run which cannot start."""
    # The devices of a cluster's workers are unknown here, and this process must not occupy any of them.
    readiness = Readiness(jax.device_count() if request.launcher == "local" else None)
    problems: dict[str, list[str]] = {}
    for run in runs:
        try:
            run.directory.check()
            if not earlier_failure(run.config, run.workdir):  # A run that diverged is not started again.
                readiness.check(run.config, run.workdir)
        except UserError as error:
            problems.setdefault(str(error), []).append(run.name)
    if problems:
        raise UserError("; ".join(f"{', '.join(names)}: {error}" for error, names in problems.items()))


def outcome(run: PlannedRun, failure: str = "", reason: str = "") -> Outcome:
    """Returns the outcome of a run, with the metrics and sizes read from its directory."""
    start = (run.directory.starts() or [{}])[-1]
    return Outcome(
        run, run.directory.repaired_metrics()[0], start.get("parameters", 0), start.get("classes", 0), failure, reason
    )


def raise_failures(outcomes: Sequence[Outcome]) -> None:
    """Raises an error with the exit code for failed runs. It is called after figures and tables are written.

    Raises:
      Failed: A run failed, crashed or has not ended.
      Diverged: Runs diverged, and none failed otherwise.
    """
    failed = [o for o in outcomes if o.failure]
    if not failed:
        return
    names = "; ".join(f"{o.run.name}: {o.failure}" for o in failed)
    kind = Failed if any(o.failure != "diverged" for o in failed) else Diverged
    raise kind(f"{len(failed)} of {len(outcomes)} runs did not end: {names}")
