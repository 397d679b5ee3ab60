"""Carries out an experiment: plans and executes its runs, then writes and prints figures, tables and the record."""

import contextlib
import dataclasses
import errno
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from resnet_flax import config as configs
from resnet_flax.data.datasets import row
from resnet_flax.errors import Failed, UserError, first_line
from resnet_flax.reporting import record, tables
from resnet_flax.runs import resume
from resnet_flax.runs.directory import FULL_DISK
from resnet_flax.runs.file_names import CONFIG
from resnet_flax.sweeps.cases import Case, Outcome, PlannedRun, Request
from resnet_flax.sweeps.declaration import Declaration, Findings, Results, Stage
from resnet_flax.sweeps.earlier import check_kept
from resnet_flax.sweeps.execution import Stopped, execute, raise_failures, read_outcomes
from resnet_flax.sweeps.plan import identity, locate, plan, print_plan, summary

_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR)


@configs.executed_once()
def carry_out(experiment: Declaration, name: str, request: Request) -> Results | None:
    """Executes the missing runs, then writes figures, tables and the record.

    With ``request.dry_run``, it only prints the runs. With ``request.draw``, or after a signal has stopped the runs, it
    writes the figures and tables of the results so far.

    Args:
      experiment: The declaration of the experiment.
      name: The name of the experiment's module, for the record.
      request: The settings, seeds and folders. Settings that it lacks get their defaults.

    Returns:
      The results of the runs, or None after a dry run.

    Raises:
      UserError: A run is invalid, or the folder holds results of other finished runs, or cannot be written. It is
        raised before the first run starts, unless the disk is full later.
      Interrupted: A signal stopped the runs. The same command resumes them.
      Failed, Diverged: A run failed or diverged, or the second stage has no runs. Figures and tables are written first.
    """
    defaults = {k: list(s.default) if s.repeated else s.default for k, s in experiment.settings.items()}
    request = dataclasses.replace(request, settings=SimpleNamespace(**{**defaults, **vars(request.settings)}))
    cases, stage = experiment.cases(request), experiment.then(request)
    groups = dict(cases) if isinstance(cases, Mapping) else {"": cases}
    runs = locate(plan([case for group in groups.values() for case in group], request), request)
    given = {*request.overrides, *(key for group in groups.values() for case in group for key in case.overrides)}
    for remark in configs.without_effect(given, [run.config for run in runs]):
        print(remark, file=sys.stderr)
    texts = _texts(experiment, request, runs[0].config.data.name if runs else "")
    if request.dry_run:
        print_plan(runs)
        for line in [*([stage.dry_run_line] if stage else ()), *experiment.measures(request)]:
            print(line)
        return None
    if (request.folder / CONFIG).is_file():
        raise UserError(f"--workdir={request.folder} is the directory of a run; choose another one for an experiment")
    check_kept(runs, request, any_seed=stage is not None)
    _check_labels(runs)
    results, shown, stopped = _run_stages(runs, groups, stage, request)
    with _report_unwritable(request.folder):
        _write(experiment, name, texts, results, shown)
    if stopped:
        raise stopped
    if not request.draw:
        # A value that was tried and not chosen may diverge: finding that out is the purpose of trying it.
        reported = {outcome.run.workdir for outcome in shown}
        raise_failures([o for o in results.outcomes if o.failure != "diverged" or o.run.workdir in reported])
        if stage and stage.names and not results.groups[stage.group]:
            raise Failed(
                f"{len(stage.names)} later runs, such as {stage.names[0]}, were not trained: the results of the "
                f"{len(results.outcomes)} runs before do not decide on any"
            )
    return results


def _run_stages(
    runs: Sequence[PlannedRun], groups: Mapping[str, Sequence[Case]], stage: Stage | None, request: Request
) -> tuple[Results, Sequence[Outcome], Stopped | None]:
    """Executes the runs, and then those of the second stage if there is one.

    Returns:
      The results, the outcomes for the table of errors, and the exception of the signal that stopped the runs, if one
      did.
    """
    announcement = "\n".join([summary(runs), *([stage.dry_run_line] if stage else ())]) if runs else ""
    members = _members(groups, runs, request)
    outcomes, stopped = _run_stage(runs, request, stage.names if stage else (), announcement=announcement)
    if stage is None:
        return Results(request, outcomes, members, stopped is not None), outcomes, stopped
    later = locate(plan(stage.cases(Results(request, outcomes, members)), request), request)
    # After a signal, nothing more is executed: the second stage has the cases that are already decided.
    chosen, stopped = (read_outcomes(later), stopped) if stopped else _run_stage(later, request, (), runs)
    members[stage.group] = frozenset(run.workdir for run in later)
    outcomes = [*(o for o in outcomes if o.run.workdir not in members[stage.group]), *chosen]
    return Results(request, outcomes, members, stopped is not None), chosen or outcomes, stopped


def _check_labels(runs: Sequence[PlannedRun]) -> None:
    """Refuses runs that have the same label and differ in more than the seed: tables would average them.

    Raises:
      UserError: There are such runs. The message names the keys in which they differ.
    """
    keys = [key for key in configs.KEYS if key != "seed" and key not in configs.RESUME_MAY_CHANGE]
    first: dict[str, Mapping[str, Any]] = {}
    for run in runs:
        config = configs.flatten(run.config)
        before = first.setdefault(run.label, config)
        if differing := [f"{key}={before[key]} and {config[key]}" for key in keys if before[key] != config[key]]:
            raise UserError(
                f"two cases have the label {run.label!r}, so their errors would be averaged like those of two seeds; "
                f"they differ in {'; '.join(differing)}; give each case a label of its own"
            )


def _members(
    groups: Mapping[str, Sequence[Case]], runs: Sequence[PlannedRun], request: Request
) -> dict[str, frozenset[Path]]:
    """Returns the directories of each group's runs. Groups whose cases have equal configs share them."""
    folders = {identity(run.config): run.workdir for run in runs}
    return {
        group: frozenset(folders[identity(run.config)] for run in (plan(cases, request) if group else runs))
        for group, cases in groups.items()
    }


def _run_stage(
    runs: Sequence[PlannedRun],
    request: Request,
    to_follow: Sequence[str],
    before: Sequence[PlannedRun] = (),
    announcement: str = "",
) -> tuple[Sequence[Outcome], Stopped | None]:
    """Executes the runs of one stage, or with ``request.draw`` only reads their outcomes.

    Args:
      runs: The runs of the stage.
      request: The request to the experiment.
      to_follow: Names of the runs of later stages, for plan.json.
      before: The runs of the previous stage, for plan.json.
      announcement: Lines that are printed before the first run.

    Returns:
      The outcomes, and the exception of the signal that stopped the runs, if one did.
    """
    if request.draw:
        return read_outcomes(runs), None
    if not runs:
        return [], None
    planned = {run.workdir: run.name for run in (*before, *runs)}
    with _report_unwritable(request.folder):
        record.write_plan(request.folder, planned | {request.folder / name: name for name in to_follow}, request.call)
    try:
        return execute(runs, request, announcement), None
    except Stopped as signal:
        return signal.outcomes, signal


@contextlib.contextmanager
def _report_unwritable(folder: Path) -> Iterator[None]:
    """Context manager that turns an operating system's error about a file of the experiment into one line.

    Raises:
      UserError: The disk is full, or a file in the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        path, here = Path(str(error.filename or os.devnull)).absolute(), folder.absolute()
        refused = error.errno in _NOT_WRITABLE or not folder.is_dir()  # a missing file inside was to be read
        if error.errno not in FULL_DISK and not (refused and (path.is_relative_to(here) or here.is_relative_to(path))):
            raise
        raise UserError(f"--workdir={folder}: cannot be written: {error.strerror}; finished runs are kept") from None


def _texts(experiment: Declaration, request: Request, data: str) -> dict[str, str]:
    """Returns the title and the question, with the values of the settings and the title of the data set filled in.

    Raises:
      UserError: Braces in them hold something else. It is raised before the first run starts.
    """
    fields = {k: "; ".join(value) if isinstance(value, list) else value for k, value in vars(request.settings).items()}
    fields["data"] = row(data).title or data
    try:
        return {key: getattr(experiment, key).format_map(fields) for key in ("title", "question")}
    except (LookupError, ValueError, AttributeError, TypeError):
        known = ", ".join(f"{{{name}}}" for name in fields)
        raise UserError(
            f"experiment {experiment.title!r}: braces in its title and question stand for {known}; double others: "
            f"{{{{ }}}}"
        ) from None


def _write(
    experiment: Declaration, name: str, texts: Mapping[str, str], results: Results, shown: Sequence[Outcome]
) -> None:
    """Writes tables, figures and the record, and prints their paths.

    Args:
      experiment: The declaration of the experiment.
      name: The name of the experiment's module.
      texts: The title and the question (:func:`_texts`).
      results: The results of all runs.
      shown: The outcomes in the table of errors.
    """
    request, outcomes = results.request, results.outcomes
    errors = []
    if outcomes:  # Tables come first, because little time may be left after a signal.
        tables.write_runs(outcomes, request.folder, results.groups)
        errors = [tables.write(shown, request.folder)]
    found = _findings(experiment, results)
    states = Counter(outcome.failure or "finished" for outcome in outcomes)
    so_far = ", ".join(f"{count} {state}" for state, count in states.items())
    early, changed = [], []
    if not all(o.has_ended for o in outcomes):
        early = [f"Drawn before all runs have ended: of {len(outcomes)} runs, {so_far}."]
    if older := [o.run.name for o in outcomes if resume.remarks(o.run.directory, o.run.config)]:
        changed = [
            f"Your own code has changed since these runs trained, so their results are not those of the code as it is "
            f"now: {', '.join(older)}"
        ]
    written = record.Record(
        experiment=name,
        title=texts["title"],
        question=texts["question"],
        figures=tuple(found.figures),
        tables=(*errors, *found.tables),
        notes=(*early, *changed, *found.notes),
        published=tuple(experiment.published),
        command=request.call,
    )
    record.write(written, request.folder, [o.run.workdir for o in outcomes if o.failure != "not begun"])
    if outcomes or found.printed:
        print(found.printed or tables.markdown(shown))
    for note in changed:
        print(note)
    for figure in found.figures:
        print(f"figure: {request.folder / figure.file}")


def _findings(experiment: Declaration, results: Results) -> Findings:
    """Draws and measures. An error while runs are unfinished is only printed, so that the tables are still written."""
    if results.outcomes and not any(outcome.lines or outcome.has_ended for outcome in results.outcomes):
        return Findings()  # No run has begun.
    try:
        return experiment.findings(results)
    except Exception as error:
        if all(outcome.has_ended for outcome in results.outcomes):
            raise
        print(f"no figures could be drawn of the runs so far: {type(error).__name__}: {first_line(error)}")
        return Findings()
