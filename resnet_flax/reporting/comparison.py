"""Compares our errors with published ones, and keeps errors measured by different protocols apart."""

import dataclasses
import string
from collections.abc import Mapping, Sequence
from typing import Any

from resnet_flax import config as configs
from resnet_flax import published
from resnet_flax.reporting import tables
from resnet_flax.reporting.gather import RunFolder
from resnet_flax.reporting.protocol import protocol_differences
from resnet_flax.runs import rules

# Our metric for each published one. Ours is measured at the final step, on a single view of each image.
_MEASURED = {"test error %": "test_error", "training error %": "train_error", "top-1 error %": "test_error"}
_VIEW = "tested on a single view instead of 10 crops"


@dataclasses.dataclass(frozen=True)
class Row:
    """The errors of one network. Each column may hold several numbers, or none.

    Attributes:
      network: The network's name, with its variant in brackets if there are several.
      paper: The numbers of papers, as printed.
      peers: The numbers of other people's reruns.
      ours: Our numbers by the paper's protocol.
      ours_otherwise: Our numbers by other protocols, each with the letter of the note that lists the differences.
    """

    network: str
    paper: Sequence[str]
    peers: Sequence[str]
    ours: Sequence[str]
    ours_otherwise: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The table of comparison for one data set and metric.

    Attributes:
      data: The data set of the published numbers.
      metric: One of published.ERRORS.
      rows: A row for each network.
      notes: The differences in protocol by letter, beginning with ``a``.
      sources: Sentences on who published the numbers, and where.
      remarks: Sentences on the limits of the comparison, and on runs that are left out.
    """

    data: str
    metric: str
    rows: Sequence[Row]
    notes: Mapping[str, str]
    sources: Sequence[str]
    remarks: Sequence[str]


def compare(given: Sequence[published.Table], runs: Sequence[RunFolder], only_ours: bool = False) -> list[Comparison]:
    """Compares runs with published errors, in a table for each metric and data set that a run was trained on.

    Our errors are those of the final step, as mean and standard deviation (ddof 1) over seeds. Of several runs with the
    same seed, the first one counts. Unfinished runs are left out, and a remark names them.

    Args:
      given: The published tables.
      runs: Our runs.
      only_ours: If true, the tables show only networks that we trained.
    """
    numbers = [(n, table.role) for table in given for n in table.numbers]
    found = []
    for data, metric in dict.fromkeys((n.data, n.metric) for n, _ in numbers):
        here = [(n, role) for n, role in numbers if (n.data, n.metric) == (data, metric)]
        fitting = [run for run in runs if (run.config.model.family == "imagenet") == (data == "imagenet2012")]
        if any(run.config.data.name == data for run in fitting):
            found.append(_Builder(data, metric, here, fitting).build([t for t in given if _has(t, here)], only_ours))
    return [comparison for comparison in found if comparison.rows]


def _has(table: published.Table, numbers: Sequence[tuple[published.Number, str]]) -> bool:
    return any(n in table.numbers for n, _ in numbers)


@dataclasses.dataclass
class _Cells:
    """A row while it is being filled."""

    paper: list[str] = dataclasses.field(default_factory=list)
    peers: list[str] = dataclasses.field(default_factory=list)
    # The error in percent by seed, by the differences from the protocol.
    measured: dict[tuple[str, ...], dict[int, float]] = dataclasses.field(default_factory=dict)


class _Builder:
    def __init__(
        self,
        data: str,
        metric: str,
        numbers: Sequence[tuple[published.Number, str]],
        runs: Sequence[RunFolder],
    ) -> None:
        self.data, self.metric, self.numbers, self.runs = data, metric, numbers, runs
        self.cells: dict[tuple[str, str], _Cells] = {}

    def build(self, given: Sequence[published.Table], only_ours: bool) -> Comparison:
        self._publish()
        left_out = [self._add(run) for run in self.runs]
        letters: dict[tuple[str, ...], str] = {}
        rows = []
        for (network, variant), cells in self.cells.items():
            if only_ours and not cells.measured:
                continue
            ours, ours_otherwise = [], []
            for differences, by_seed in cells.measured.items():
                text = _over_seeds(list(by_seed.values()))
                if differences:
                    letter = letters.setdefault(differences, _letter(len(letters)))
                    ours_otherwise.append(f"{text} [{letter}]")
                else:
                    ours.append(text)
            rows.append(
                Row(f"{network} ({variant})" if variant else network, cells.paper, cells.peers, ours, ours_otherwise)
            )
        shown = [n for n, _ in self.numbers if not only_ours or self.cells[n.network, n.variant].measured]
        left_out = [text for text in left_out if text]
        remarks = list(dict.fromkeys(note for table in given for note in table.notes))
        if left_out:
            remarks.append(f"Left out: {', '.join(left_out)}.")
        notes = {letter: "; ".join(differences) for differences, letter in letters.items()}
        return Comparison(self.data, self.metric, rows, notes, _sources(shown), remarks)

    def _publish(self) -> None:
        several = {role: len({n.by for n, r in self.numbers if r == role}) > 1 for role in published.ROLES}
        for number, role in self.numbers:
            cells = self.cells.setdefault((number.network, number.variant), _Cells())
            column = cells.paper if role == "paper" else cells.peers
            column.append(f"{number}, {number.by}" if several[role] else str(number))

    def _add(self, run: RunFolder) -> str:
        """Adds a run to its row, or returns the text that names it as left out."""
        key = _MEASURED.get(self.metric)
        if not run.finished:
            return f"{run.name}, seed {run.config.seed} ({run.status})"
        error = run.final(key) if key else None
        if error is None:
            return ""
        flat = configs.flatten(run.config)
        same = [n for n, _ in self.numbers if n.network == run.name and _fits(n.config, flat)]
        row = (same[0].network, same[0].variant) if same else (run.name, "")
        differences = [*protocol_differences(run.config, same[0].config if same else None), *self._recipe(run, same)]
        differences += [f"{rules.MARK}: {reason}" for reason in run.old_rules]
        cells = self.cells.setdefault(row, _Cells())
        seeds = cells.measured.setdefault(tuple(differences), {})
        seeds.setdefault(run.config.seed, 100 * error)
        return ""

    def _recipe(self, run: RunFolder, same: Sequence[published.Number]) -> list[str]:
        """Returns the differences between the recipe and the sources of the numbers that the run is compared with.

        A network that nobody published is compared with the sources of that unit's other depths. If there are none, it
        is compared with the sources that use the recipe, or else with all sources.
        """
        every = [n for n, _ in self.numbers]
        beside = same or [n for n in every if n.network.partition("-")[0] == run.config.model.unit]
        beside = beside or [n for n in every if not n.differs] or every
        differences = dict.fromkeys(text for n in beside for text in n.differs)
        if any(n.evaluation == "10-crop" for n in beside):
            differences[_VIEW] = None
        return list(differences)


def _fits(wanted: Mapping[str, Any], flat: Mapping[str, Any]) -> bool:
    return all(flat.get(key) == value for key, value in wanted.items())


def _over_seeds(errors: Sequence[float]) -> str:
    return f"{tables.mean_and_deviation(errors)} ({len(errors)} seed{'s' if len(errors) > 1 else ''})"


def _letter(index: int) -> str:
    """Returns the letter of a note: ``a`` to ``z``, then ``aa``, ``ab`` and so on."""
    letters = string.ascii_lowercase
    return letters[index] if index < 26 else _letter(index // 26 - 1) + letters[index % 26]


def _sources(numbers: Sequence[published.Number]) -> list[str]:
    found: dict[str, list[str]] = {}
    for n in numbers:
        quoted = f"{n.where} ({n.protocol})" if n.protocol else n.where
        places = found.setdefault(f"{n.by}, {n.source} ({n.address})", [])
        if quoted not in places:
            places.append(quoted)
    return [f"{source}: {'; '.join(places)}." for source, places in found.items()]
