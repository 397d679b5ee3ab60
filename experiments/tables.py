"""Final errors of runs as a table, in Markdown and CSV: the mean over seeds, and its standard deviation."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.runs import Outcome
from resnet_flax.progress import duration

_HEADER = ("network", "parameters", "seeds", "training error %", "test error %", "training time")


def rows(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """A row a network: its parameters, how many seeds, errors at the final step, the time one run trained.

    The training error is the one on the augmented stream with batch statistics, mean since the line before the
    last. Seeds that diverged are counted, not averaged.
    """
    networks: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        networks.setdefault(outcome.run.name, []).append(outcome)
    return [(name, *_row(members)) for name, members in networks.items()]


def _row(members: Sequence[Outcome]) -> tuple[str, ...]:
    whole = [o for o in members if not o.diverged]
    seeds = str(len(members))
    if len(whole) < len(members):
        seeds += f" ({len(members) - len(whole)} diverged)"
    time = duration(float(np.mean([o.seconds for o in whole]))) if whole else "-"
    errors = [mean([100 * o.final[key] for o in whole]) for key in ("train_error", "test_error")]
    return (f"{members[0].parameters:,}", seeds, *errors, time)


def mean(values: Sequence[float]) -> str:
    """``8.75`` of one value, ``6.61 ± 0.16`` of several (standard deviation with ddof 1), ``-`` of none."""
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"


def markdown(outcomes: Sequence[Outcome]) -> str:
    """The table as Markdown."""
    lines = [_HEADER, tuple("---" if i == 0 else "---:" for i in range(len(_HEADER))), *rows(outcomes)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Writes table.md and table.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(markdown(outcomes))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_HEADER, *rows(outcomes)])
    (folder / "table.csv").write_text(text.getvalue())
