"""What all experiments made of training runs have in common: plan, run, write, say."""

import dataclasses
from collections.abc import Iterable, Sequence

from resnet_flax.reporting import record, tables
from resnet_flax.reporting.record import Figure, Record, Table
from resnet_flax.sweeps import options
from resnet_flax.sweeps.runs import Case, Outcome, execute, located, plan, print_plan, raise_failures


def run(cases: Iterable[Case]) -> list[Outcome] | None:
    """Runs every case with every seed of ``--seeds``; with ``--dry-run`` prints them and returns None."""
    planned = located(plan(cases, options.whole_numbers(options.SEEDS)))
    if options.DRY_RUN.value:
        print_plan(planned)
        return None
    return execute(planned)


def finish(outcomes: Sequence[Outcome], drafted: Record, figures: Sequence[Figure], more: Sequence[Table] = ()) -> None:
    """Writes the table of errors and the record, prints where they are, and raises if a run failed."""
    folder = options.workdir()
    errors = [tables.write(outcomes, folder)] if outcomes else []  # an experiment may only measure
    complete = dataclasses.replace(drafted, figures=tuple(figures), tables=(*errors, *more))
    record.write(complete, folder, [o.run.workdir for o in outcomes])
    if outcomes:
        print(tables.markdown(outcomes))
    for figure in figures:
        print(f"figure: {folder / figure.file}")
    raise_failures(outcomes)
