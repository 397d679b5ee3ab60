"""What all experiments have in common: plan, run, draw, write, say."""

from collections.abc import Mapping

from resnet_flax.data.datasets import row
from resnet_flax.reporting import record, tables
from resnet_flax.sweeps.cases import Asked
from resnet_flax.sweeps.declaration import Declaration, Results
from resnet_flax.sweeps.execution import execute, raise_failures
from resnet_flax.sweeps.plan import located, plan, print_plan


def carry_out(experiment: Declaration, name: str, asked: Asked) -> Results | None:
    """Runs what is missing, then writes figures, tables and the record; with ``dry_run`` prints the runs.

    Args:
      experiment: its declaration.
      name: of its module, for the record.
      asked: its settings, seeds and folders.

    Returns:
      What the runs ended as; None where they were only printed.

    Raises:
      UserError: before the first run, if any of them cannot be.
      Interrupted: a signal came; what was finished stays, and the same command goes on.
      Failed, Diverged: not every run came to its end; figures and tables are written then.
    """
    cases = experiment.cases(asked)
    groups = cases if isinstance(cases, Mapping) else {"": cases}
    runs = located(plan([case for group in groups.values() for case in group], asked), asked)
    if asked.dry_run:
        print_plan(runs)
        for line in experiment.measures(asked):
            print(line)
        return None
    if runs:
        record.write_plan(asked.folder, {run.workdir: run.name for run in runs})
    outcomes = execute(runs, asked) if runs else []
    labels = {group: frozenset(case.label for case in cases) for group, cases in groups.items()}
    results = Results(asked, outcomes, labels)
    found = experiment.findings(results)
    errors = [tables.write(outcomes, asked.folder)] if outcomes else []  # an experiment may only measure
    said = {key: "; ".join(value) if isinstance(value, list) else value for key, value in vars(asked.settings).items()}
    said["data"] = (row(results.data).title or results.data) if outcomes else ""
    written = record.Record(
        experiment=name,
        title=experiment.title.format_map(said),
        question=experiment.question.format_map(said),
        figures=tuple(found.figures),
        tables=(*errors, *found.tables),
        notes=tuple(found.notes),
        published=tuple(experiment.published),
    )
    record.write(written, asked.folder, [o.run.workdir for o in outcomes])
    if outcomes or found.printed:
        print(found.printed or tables.markdown(outcomes))
    for figure in found.figures:
        print(f"figure: {asked.folder / figure.file}")
    raise_failures(outcomes)
    return results
