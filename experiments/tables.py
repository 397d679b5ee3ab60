"""Final errors of runs as a table, in Markdown and CSV: the mean over seeds, and its standard deviation."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.record import Table
from resnet_flax.atomic import write_atomically
from resnet_flax.progress import duration
from resnet_flax.training import rules
from resnet_flax.training import workdir as folders

if TYPE_CHECKING:  # it brings the flags of an experiment with it, and the report has its own
    from experiments.runs import Outcome

CAPTION = (
    "Errors at the final step (training: training stream, batch statistics, mean since the line of metrics before "
    "the last; test: single view), mean ± standard deviation over seeds, and the time one run trained."
)
_ERRORS = {"train_error": "training error %", "test_error": "test error %"}


def columns(finals: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The metrics of a table and their titles: the errors, and whatever else was measured on the test images.

    Args:
      finals: last lines of runs.
    """
    more = {key for line in finals for key in line if key.startswith("test_") and not key.endswith(("_loss", "_raw"))}
    percent = {True: " %", False: ""}
    return _ERRORS | {key: key.replace("_", " ") + percent["error" in key] for key in sorted(more - _ERRORS.keys())}


def header(outcomes: Sequence["Outcome"]) -> tuple[str, ...]:
    """The titles of :func:`rows`."""
    return ("network", "parameters", "seeds", *columns(o.final for o in outcomes).values(), "training time")


def rows(outcomes: Sequence["Outcome"]) -> list[tuple[str, ...]]:
    """A row a label: parameters, how many seeds, errors at the final step, the time one run trained.

    The training error is the one on the training stream with batch statistics, mean since the line before the
    last. Seeds that diverged or crashed are counted, not averaged. A label is marked where a run of it was begun under
    old rules.
    """
    return [
        (
            f"{label} ({rules.MARK})" if _old_rules(members) else label,
            *_row(members, columns(o.final for o in outcomes)),
        )
        for label, members in by_label(outcomes).items()
    ]


def by_label(outcomes: Sequence["Outcome"]) -> dict[str, list["Outcome"]]:
    """The seeds of each label, in the order of the first."""
    found: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.run.label, []).append(outcome)
    return found


def _old_rules(outcomes: Sequence["Outcome"]) -> list[str]:
    """Why runs among them, begun under old rules, would end otherwise today."""
    reasons = (reason for o in outcomes for reason in rules.old_rules(o.run.config, folders.rules_of(o.run.workdir)))
    return list(dict.fromkeys(reasons))


def _row(members: Sequence["Outcome"], keys: Iterable[str]) -> tuple[str, ...]:
    whole = [o for o in members if not o.failure]
    failures = Counter(o.failure for o in members if o.failure)
    seeds = str(len(members))
    if failures:
        seeds += f" ({', '.join(f'{n} {what}' for what, n in failures.items())})"
    time = duration(float(np.mean([o.seconds for o in whole]))) if whole else "-"
    found = {key: [o.final[key] for o in whole if o.final.get(key) is not None] for key in keys}
    errors = [mean_and_deviation([100 * v if "error" in key else v for v in found[key]]) for key in found]
    parameters = max(o.parameters for o in members)
    return (f"{parameters:,}" if parameters else "-", seeds, *errors, time)


def mean_and_deviation(values: Sequence[float]) -> str:
    """``12.34 ± 0.56``; without the deviation where there is one value, ``-`` where there is none."""
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"


def markdown(outcomes: Sequence["Outcome"]) -> str:
    """The table as Markdown."""
    return to_markdown(header(outcomes), rows(outcomes))


def write(outcomes: Sequence["Outcome"], folder: Path) -> Table:
    """Writes table.md and table.csv."""
    old = "".join(f" {rules.MARK.capitalize()}: {reason}." for reason in _old_rules(outcomes))
    return write_rows(folder / "table.csv", header(outcomes), rows(outcomes), CAPTION + old)


def write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> Table:
    """Any table: as CSV under that name, and as Markdown beside it; returns what the report says of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, to_csv(header, rows))
    write_atomically(path.with_suffix(".md"), to_markdown(header, rows))
    return Table(path.name, caption)


def to_csv(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as CSV, its header first."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def to_markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; the first column is text, the others are numbers."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "".join(
        f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |\n" for row in (header, rule, *rows)
    )
