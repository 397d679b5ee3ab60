"""A list of runs is carried out: finished ones are skipped, interrupted ones go on, failed ones are noted."""

from collections.abc import Sequence

import jax

from resnet_flax.errors import Diverged, Failed, UserError
from resnet_flax.launchers import local, ray
from resnet_flax.sweeps.cases import Asked, Outcome, Run
from resnet_flax.sweeps.endings import earlier_failure
from resnet_flax.training.readiness import Readiness


def execute(runs: Sequence[Run], asked: Asked) -> list[Outcome]:
    """Runs them, where the launcher says; one that diverges, fails or crashes is noted, and the others go on.

    A run that diverged before would diverge again and is not repeated; one that failed or crashed is tried again.

    Returns:
      Their outcomes, in the order of the runs.

    Raises:
      UserError: before the first run, if any of them cannot be; it names all that cannot.
      Interrupted: a signal came; what was finished stays, and the same command goes on.
    """
    _check(runs, asked)
    on_ray = asked.launcher == "ray"
    endings = ray.launch(runs, asked.runs, asked.cluster) if on_ray else local.launch(runs)
    return [outcome(run, *ending) for run, ending in zip(runs, endings, strict=True)]


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
    """What the run's folder holds."""
    start = (run.directory.starts() or [{}])[-1]
    return Outcome(run, run.directory.mended()[0], start.get("parameters", 0), start.get("classes", 0), failure, reason)


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
