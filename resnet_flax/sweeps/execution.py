"""Carries out a list of runs: finished ones are skipped, interrupted ones resumed, failed ones noted; or reads them."""

from collections.abc import Sequence

import jax

from resnet_flax.errors import Diverged, Failed, Interrupted, UserError
from resnet_flax.launchers import local, ray
from resnet_flax.runs import resume
from resnet_flax.sweeps.cases import Asked, Outcome, Run
from resnet_flax.sweeps.endings import Ending, earlier_failure
from resnet_flax.training.readiness import Readiness


class Stopped(Interrupted):
    """A signal came before the last run had ended.

    Attributes:
      outcomes: of all runs, as far as they came.
    """

    def __init__(self, message: str, outcomes: Sequence[Outcome]) -> None:
        super().__init__(message)
        self.outcomes = outcomes


def execute(runs: Sequence[Run], asked: Asked) -> list[Outcome]:
    """Runs them, where the launcher says; one that diverges, fails or crashes is noted, and the others go on.

    A run that diverged before would diverge again and is not repeated; one that failed or crashed is tried again.

    Returns:
      Their outcomes, in the order of the runs.

    Raises:
      UserError: before the first run, if any of them cannot be; it names all that cannot.
      Stopped: a signal came; what was finished stays, and the same command goes on.
    """
    _check(runs, asked)
    endings: dict[int, Ending] = {}
    try:
        if asked.launcher == "ray":
            ray.launch(runs, asked.runs, asked.cluster, endings)
        else:
            local.launch(runs, endings)
    except Interrupted as signal:
        so_far = [outcome(run, *endings[i]) if i in endings else _read(run) for i, run in enumerate(runs)]
        raise Stopped(str(signal), so_far) from None
    return [outcome(run, *endings[i]) for i, run in enumerate(runs)]


def as_found(runs: Sequence[Run]) -> list[Outcome]:
    """Returns the runs' outcomes as their folders tell them, and runs nothing.

    Raises:
      UserError: a folder holds another run, or cannot be read.
    """
    for run in runs:
        resume.check_config(run.directory, run.config)
    return [_read(run) for run in runs]


def _read(run: Run) -> Outcome:
    if run.is_finished:
        return outcome(run)
    if earlier := earlier_failure(run.config, run.workdir):
        return outcome(run, *earlier)
    status, reason = run.directory.status(run.directory.last_logged_step(), run.config.train.steps)
    if status == "never started":
        return outcome(run, "not begun")
    if status.startswith("running"):
        return outcome(run, "running")
    return outcome(run, "crashed", reason) if reason else outcome(run, "interrupted")


def _check(runs: Sequence[Run], asked: Asked) -> None:
    """Refuses runs of which one could not start."""
    # What a cluster's workers have is not known here, and this process takes no devices from them.
    readiness = Readiness(jax.device_count() if asked.launcher == "local" else None)
    problems: dict[str, list[str]] = {}
    for run in runs:
        try:
            run.directory.check()
            if not earlier_failure(run.config, run.workdir):  # which would not be resumed
                readiness.check(run.config, run.workdir)
        except UserError as error:
            problems.setdefault(str(error), []).append(run.name)
    if problems:
        raise UserError("; ".join(f"{', '.join(names)}: {error}" for error, names in problems.items()))


def outcome(run: Run, failure: str = "", reason: str = "") -> Outcome:
    """Returns a run's outcome, with what its folder holds."""
    start = (run.directory.starts() or [{}])[-1]
    return Outcome(
        run, run.directory.repaired_metrics()[0], start.get("parameters", 0), start.get("classes", 0), failure, reason
    )


def raise_failures(outcomes: Sequence[Outcome]) -> None:
    """Once figures and tables are written: an exit code that says that not every run came to its end.

    Raises:
      Failed: a run failed or crashed.
      Diverged: none did, but one diverged.
    """
    failed = [o for o in outcomes if o.failure]
    if not failed:
        return
    names = "; ".join(f"{o.run.name}: {o.failure}" for o in failed)
    kind = Failed if any(o.failure != "diverged" for o in failed) else Diverged
    raise kind(f"{len(failed)} of {len(outcomes)} runs did not end: {names}")
