"""The declaration of an experiment (question, cases, findings), the results of its runs, and what is found in them."""

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
      request: of the experiment.
      outcomes: of all runs, seed by seed.
      groups: the labels of each group of cases, by its name; one group, ``""``, where there are none.
      stopped: whether a signal ended the runs: what there is is drawn, and nothing that takes long is measured.
    """

    request: Request
    outcomes: Sequence[Outcome]
    groups: Mapping[str, frozenset[str]]
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
        """A row for each run, as in runs.csv: raw numbers by the titles of their columns."""
        return tables.tidy(self.outcomes, self.folder, self.groups)

    def of(self, group: str) -> list[Outcome]:
        """The outcomes of one group of cases."""
        return [o for o in self.outcomes if o.run.label in self.groups[group]]


@dataclasses.dataclass(frozen=True)
class Findings:
    """The figures, tables and notes that are made of the results, beside the table of errors.

    Attributes:
      figures: in the order of the report.
      tables: likewise.
      notes: sentences made from what was measured, and what to bear in mind.
      printed: what the command prints at its end, in place of the table of errors.
    """

    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    printed: str = ""


@dataclasses.dataclass(frozen=True)
class Stage:
    """Runs that follow from what the first ones ended as, and are those that the table of errors reports.

    Attributes:
      group: the name of their cases in :attr:`Results.groups`.
      names: of the runs that will be added, as far as they are known before.
      dry_run_line: the line that ``--dry-run`` prints of them.
      cases: chooses them by the results of the first, those that are decided.
    """

    group: str
    names: Sequence[str]
    dry_run_line: str
    cases: Callable[[Results], Sequence[Case]]


@dataclasses.dataclass(frozen=True)
class Declaration:
    """A question, and what answers it.

    Attributes:
      title: of its section in the report; ``{data}`` stands for the name of the data set.
      question: what it asks, with the section, table or figure of the source; ``{NAME}`` stands for a setting.
      cases: what it wants run: a list, or a list for each name of a group.
      findings: draws and writes what the runs show.
      settings: its own flags, by name.
      published: keys of the tables in ``resnet_flax/published/`` that belong beside it.
      config: the config file that its runs share, where none is given.
      seeds: of every case, where none are given.
      measures: lines that ``--dry-run`` prints beside the runs: what it measures itself.
      then: a second stage of runs, if what was asked for has one.
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
