"""The runs of an experiment as tables: a tidy one with a row for each run, and a readable one with means over seeds."""

import csv
import io
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resnet_flax import config as configs
from resnet_flax.atomic import write_atomically
from resnet_flax.paths import relative
from resnet_flax.reporting import words
from resnet_flax.reporting.record import Table
from resnet_flax.runs import rules
from resnet_flax.runs.metrics import WALL_CLOCK
from resnet_flax.runtime.progress import duration
from resnet_flax.sweeps.cases import Outcome

CAPTION = (
    "Errors at the final step, mean ± standard deviation over seeds, and the mean time of a run's training steps, "
    "without compilation and evaluation. The training error is the mean over the training batches since the previous "
    "line of metrics, with augmentation and batch statistics; the test error is measured on a single view. The "
    "remark (1 of 3) says that only one of three finished runs has the metric."
)
TIME = "training time (not compiling)"
_ERRORS = {"train_error": "training error %", "test_error": "test error %"}


RUNS = "runs.csv"
_Row = dict[str, Any]


def tidy(
    outcomes: Sequence[Outcome], folder: Path | None = None, groups: Mapping[str, Collection[Path]] | None = None
) -> list[_Row]:
    """Returns a row for each run, with raw numbers as in metrics.jsonl, by column name.

    The columns are the run's label, its group if there are several, the config keys that vary among the runs, the seed,
    the state, the step and the metrics of the last line, the number of parameters, the training time in seconds, and
    the folder. Runs that were begun under old rules add a column with the reason.

    Args:
      outcomes: The outcomes of the runs.
      folder: The folder that the runs' folders are relative to. The default is the working directory.
      groups: The directories of the runs in each group, by the group's name.
    """
    flat = [configs.flatten(o.run.config) for o in outcomes]
    left_out = ("seed", *configs.RESUME_MAY_CHANGE)
    varying = [k for k in configs.KEYS if k not in left_out and len({values.get(k) for values in flat}) > 1]
    metrics = dict.fromkeys(k for o in outcomes for k in o.final if k not in ("step", *WALL_CLOCK) and "/" not in k)
    old = [_old_rules(o) for o in outcomes]

    def row(outcome: Outcome, values: Mapping[str, Any], old_rules: str) -> _Row:
        member = [name for name, workdirs in (groups or {}).items() if name and outcome.run.workdir in workdirs]
        return {
            "run": outcome.run.label,
            **({"group": "; ".join(member)} if len(groups or {}) > 1 else {}),
            **{key: values.get(key) for key in (*varying, "seed")},
            "state": outcome.failure or "finished",
            "step": outcome.final.get("step", 0),
            **{key: outcome.final.get(key) for key in metrics},
            "parameters": outcome.parameters,
            "training_seconds": outcome.seconds,
            "folder": relative(outcome.run.workdir, folder or Path()),
            **({"old_rules": old_rules} if any(old) else {}),
        }

    return list(map(row, outcomes, flat, old))


def _old_rules(outcome: Outcome) -> str:
    """Says why a run that was begun under old rules would give other results today; empty for other runs."""
    if outcome.failure == "not begun":
        return ""
    return "; ".join(rules.old_rules(outcome.run.config, outcome.run.directory.rules()))


def columns(finals: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Returns the titles of a table's metrics by metric: the errors, and all other metrics of the test images.

    Args:
      finals: The last lines of runs, or tidy rows.
    """
    more = {key for line in finals for key in line if key.startswith("test_") and not key.endswith(("_loss", "_raw"))}
    percent = {True: " %", False: ""}
    return _ERRORS | {key: key.replace("_", " ") + percent["error" in key] for key in sorted(more - _ERRORS.keys())}


def header(runs: Sequence[_Row]) -> tuple[str, ...]:
    """Returns the column titles of :func:`rows`."""
    return ("network", "parameters", "seeds", *columns(runs).values(), TIME)


def rows(runs: Sequence[_Row]) -> list[tuple[str, ...]]:
    """Returns the readable table: for each label its parameters, seeds, errors at the final step, and training time.

    Labels are in words, as in figures. Seeds that are not finished are counted and not averaged. A label is marked if
    one of its runs was begun under old rules.

    Args:
      runs: The tidy rows.
    """
    labels: dict[str, list[_Row]] = {}
    for run in runs:
        labels.setdefault(run["run"], []).append(run)
    return [
        (words.without_keys(label) + f" ({rules.MARK})" * any(m.get("old_rules") for m in members),
         *_row(members, columns(runs)))
        for label, members in labels.items()
    ]  # fmt: skip


def by_label(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Returns the outcomes of each label, in the order of their first occurrence."""
    found: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.run.label, []).append(outcome)
    return found


def _row(members: Sequence[_Row], keys: Iterable[str]) -> tuple[str, ...]:
    whole = [m for m in members if m["state"] == "finished"]
    others = Counter(m["state"] for m in members if m["state"] != "finished")
    seeds = str(len(members))
    if others:
        seeds += f" ({', '.join(f'{n} {what}' for what, n in others.items())})"
    time = duration(float(np.mean([m["training_seconds"] for m in whole]))) if whole else "-"
    found = {key: [m[key] for m in whole if m.get(key) is not None] for key in keys}
    errors = [mean_of(key, values, len(whole)) for key, values in found.items()]
    parameters = max(m["parameters"] for m in members)
    return (f"{parameters:,}" if parameters else "-", seeds, *errors, time)


def mean_of(key: str, values: Sequence[float], runs: int) -> str:
    """Returns a metric's mean and deviation over runs, errors in %, and how many of them have it, if not all."""
    scale = 100 if "error" in key else 1
    fewer = f" ({len(values)} of {runs})" if 0 < len(values) < runs else ""
    return mean_and_deviation([scale * value for value in values]) + fewer


def mean_and_deviation(values: Sequence[float]) -> str:
    """Returns a text such as ``12.34 ± 0.56``. One value has no deviation; no value is ``-``."""
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"


def markdown(outcomes: Sequence[Outcome]) -> str:
    """Returns the readable table in Markdown."""
    runs = tidy(outcomes)
    return to_markdown(header(runs), rows(runs))


def write(outcomes: Sequence[Outcome], folder: Path) -> Table:
    """Writes the readable table as table.md and table.csv, and returns its entry in the record."""
    runs = tidy(outcomes)
    reasons = dict.fromkeys(run["old_rules"] for run in runs if run.get("old_rules"))
    old = "".join(f" {rules.MARK.capitalize()}: {reason}." for reason in reasons)
    return write_rows(folder / "table.csv", header(runs), rows(runs), CAPTION + old)


def write_runs(outcomes: Sequence[Outcome], folder: Path, groups: Mapping[str, Collection[Path]]) -> None:
    """Writes the tidy rows as runs.csv. A number that is missing or not finite becomes an empty field."""
    found = tidy(outcomes, folder, groups)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / RUNS, to_csv(list(found[0]), [list(row.values()) for row in found]))


def write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> Table:
    """Writes a table as CSV to the path and as Markdown beside it, and returns the table's entry in the record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, to_csv(header, rows))
    write_atomically(path.with_suffix(".md"), to_markdown(header, rows))
    return Table(path.name, caption)


def to_csv(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table as CSV with a header line."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def to_markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown. The first column is aligned as text, the others as numbers."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "".join(
        f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |\n" for row in (header, rule, *rows)
    )
