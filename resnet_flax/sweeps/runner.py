"""Carries an experiment out: plans and runs its cases, then draws, writes and prints what they show."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from types import SimpleNamespace

from resnet_flax.data.datasets import row
from resnet_flax.reporting import record, tables
from resnet_flax.sweeps.cases import Case, Outcome, Request, Run
from resnet_flax.sweeps.declaration import Declaration, Findings, Results
from resnet_flax.sweeps.endings import first_line
from resnet_flax.sweeps.execution import Stopped, execute, raise_failures, read_outcomes
from resnet_flax.sweeps.plan import locate, plan, print_plan


def carry_out(experiment: Declaration, name: str, request: Request) -> Results | None:
    """Runs what is missing, then writes figures, tables and the record; with ``dry_run`` prints the runs.

    Where a signal stops the runs, and with ``draw``, it writes and draws what there is.

    Args:
      experiment: its declaration.
      name: of its module, for the record.
      request: its settings, those left out by default, its seeds and folders.

    Returns:
      What the runs ended as; None where they were only printed.

    Raises:
      UserError: before the first run, if any of them cannot be.
      Interrupted: a signal came; what was finished stays, and the same command goes on.
      Failed, Diverged: not every run came to its end; figures and tables are written then.
    """
    defaults = {k: list(s.default) if s.repeated else s.default for k, s in experiment.settings.items()}
    request = dataclasses.replace(request, settings=SimpleNamespace(**{**defaults, **vars(request.settings)}))
    cases, stage = experiment.cases(request), experiment.then(request)
    groups = dict(cases) if isinstance(cases, Mapping) else {"": cases}
    runs = locate(plan([case for group in groups.values() for case in group], request), request)
    if request.dry_run:
        print_plan(runs)
        for line in [*([stage.dry_run_line] if stage else ()), *experiment.measures(request)]:
            print(line)
        return None
    outcomes, stopped = _carried(runs, request, stage.names if stage else ())
    shown = outcomes
    if stage:
        groups[stage.group] = stage.cases(Results(request, outcomes, _labels(groups)))
        later = locate(plan(groups[stage.group], request), request)
        # A stopped sweep runs nothing more, and knows of its second stage what is decided.
        chosen, signal = (read_outcomes(later), stopped) if stopped else _carried(later, request, (), runs)
        stopped, places = signal, {run.workdir for run in later}
        outcomes = [*(o for o in outcomes if o.run.workdir not in places), *chosen]
        shown = chosen or outcomes
    results = Results(request, outcomes, _labels(groups), stopped is not None)
    _write(experiment, name, results, shown)
    if stopped:
        raise stopped
    if not request.draw:
        # A value that was only tried may diverge: that is what it was tried for.
        reported = {outcome.run.workdir for outcome in shown}
        raise_failures([o for o in outcomes if o.failure != "diverged" or o.run.workdir in reported])
    return results


def _labels(groups: Mapping[str, Sequence[Case]]) -> dict[str, frozenset[str]]:
    return {group: frozenset(case.label for case in cases) for group, cases in groups.items()}


def _carried(
    runs: Sequence[Run], request: Request, to_follow: Sequence[str], before: Sequence[Run] = ()
) -> tuple[Sequence[Outcome], Stopped | None]:
    """Runs them, or reads them where nothing is to be run; returns their outcomes, and the signal that stopped them.

    Args:
      runs: of one stage.
      request: its launcher, and whether runs are only drawn.
      to_follow: names of runs that are not known yet.
      before: the runs of the stage before.
    """
    if request.draw:
        return read_outcomes(runs), None
    if not runs:
        return [], None
    planned = {run.workdir: run.name for run in (*before, *runs)}
    record.write_plan(request.folder, planned | {request.folder / name: name for name in to_follow})
    try:
        return execute(runs, request), None
    except Stopped as signal:
        return signal.outcomes, signal


def _write(experiment: Declaration, name: str, results: Results, shown: Sequence[Outcome]) -> None:
    """Writes tables, figures and the record, and prints where they are.

    Args:
      experiment: its declaration.
      name: of its module.
      results: of all runs.
      shown: the outcomes in the table of errors.
    """
    request, outcomes = results.request, results.outcomes
    errors = []  # an experiment may only measure
    if outcomes:  # first of all: after a signal there may be little time
        tables.write_runs(outcomes, request.folder, results.groups)
        errors = [tables.write(shown, request.folder)]
    found = _findings(experiment, results)
    said = {
        key: "; ".join(value) if isinstance(value, list) else value for key, value in vars(request.settings).items()
    }
    said["data"] = (row(results.data).title or results.data) if outcomes else ""
    states = Counter(outcome.failure or "finished" for outcome in outcomes)
    so_far = ", ".join(f"{count} {state}" for state, count in states.items())
    early = [f"Drawn before the end, of {len(outcomes)} runs: {so_far}."] * (not all(o.has_ended for o in outcomes))
    written = record.Record(
        experiment=name,
        title=experiment.title.format_map(said),
        question=experiment.question.format_map(said),
        figures=tuple(found.figures),
        tables=(*errors, *found.tables),
        notes=(*early, *found.notes),
        published=tuple(experiment.published),
    )
    record.write(written, request.folder, [o.run.workdir for o in outcomes if o.failure != "not begun"])
    if outcomes or found.printed:
        print(found.printed or tables.markdown(shown))
    for figure in found.figures:
        print(f"figure: {request.folder / figure.file}")


def _findings(experiment: Declaration, results: Results) -> Findings:
    """Draws and measures; runs that have not ended must not keep those that have from being written."""
    if results.outcomes and not any(outcome.lines or outcome.has_ended for outcome in results.outcomes):
        return Findings()  # nothing has begun
    try:
        return experiment.findings(results)
    except Exception as error:
        if all(outcome.has_ended for outcome in results.outcomes):
            raise
        print(f"no figures of the runs so far: {type(error).__name__}: {first_line(error)}")
        return Findings()
