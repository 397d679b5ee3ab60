"""The declaration of an experiment (its question, cases and findings), and the results of its runs."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_flax.reporting import tables
from resnet_flax.reporting.record import Figure, Table
from resnet_flax.sweeps.cases import Case, Outcome, Request
from resnet_flax.sweeps.options import Setting


@dataclasses.dataclass(frozen=True)
class Results:
    """The results of an experiment's runs.

    Attributes:
      request: The request to the experiment.
      outcomes: The outcomes of all runs, seed by seed.
      groups: The directories of the runs in each group, by the group's name. Without groups, all are in the group
        ``""``.
      stopped: True if a signal stopped the runs. Findings then draw the results so far and skip long measurements.
    """

    request: Request
    outcomes: Sequence[Outcome]
    groups: Mapping[str, frozenset[Path]]
    stopped: bool = False

    @property
    def data(self) -> str:
        """The name of the data set."""
        return self.outcomes[0].run.config.data.name

    @property
    def folder(self) -> Path:
        """The folder for figures and tables."""
        return self.request.folder

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each run, as in runs.csv, with raw numbers by column name."""
        return tables.tidy(self.outcomes, self.folder, self.groups)

    def of(self, group: str) -> list[Outcome]:
        """Returns the outcomes of one group of runs."""
        return [o for o in self.outcomes if o.run.workdir in self.groups[group]]


@dataclasses.dataclass(frozen=True)
class Findings:
    """The figures, tables and notes that an experiment makes of its results, in addition to the table of errors.

    Attributes:
      figures: The figures, in the order of the report.
      tables: The tables, in the order of the report.
      notes: Sentences about the measured numbers and their limits.
      printed: The text that the command prints at its end. By default it prints the table of errors.
    """

    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    printed: str = ""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A second stage of runs, chosen by the results of the first. The table of errors reports the second stage alone.

    Attributes:
      group: The name of its runs in :attr:`Results.groups`.
      names: Names for the future runs of the stage, for plan.json.
      dry_run_line: The line that ``--dry-run`` prints about the stage.
      cases: Returns the cases that the results of the first stage decide.
    """

    group: str
    names: Sequence[str]
    dry_run_line: str
    cases: Callable[[Results], Sequence[Case]]


@dataclasses.dataclass(frozen=True)
class Declaration:
    """A question, the runs that answer it, and the figures and tables of their results.

    Attributes:
      title: The title of its section in the report. ``{data}`` stands for the name of the data set. Braces of your own
        are doubled.
      question: The question, with the section, table or figure of the paper. ``{NAME}`` stands for a setting.
      cases: Returns the cases to train: a list, or a list for each group by its name.
      findings: Draws figures, writes tables and makes notes of the results.
      settings: Its own flags, by name.
      published: Keys of the tables in ``resnet_flax/published/`` to compare the runs with.
      config: The default config file.
      seeds: The default seeds.
      measures: Returns lines for ``--dry-run`` about what the experiment measures besides its runs.
      then: Returns the second stage of runs, or None if the request has none.
    """

    title: str
    question: str
    cases: Callable[[Request], Sequence[Case] | Mapping[str, Sequence[Case]]]
    findings: Callable[[Results], Findings]
    settings: Mapping[str, Setting] = dataclasses.field(default_factory=dict)
    published: Sequence[str] = ()
    config: str = "configs/digits.py"
    seeds: Sequence[int] = (0,)
    measures: Callable[[Request], Sequence[str]] = lambda request: ()
    then: Callable[[Request], Stage | None] = lambda request: None
