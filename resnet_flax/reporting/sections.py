"""Builds the report's document: a section for each experiment, one for other runs, and an appendix of all runs."""

import csv
import datetime
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from resnet_flax import config as configs
from resnet_flax import published
from resnet_flax.errors import UserError
from resnet_flax.reporting import appendix, comparison, protocol, tables
from resnet_flax.reporting.document import (
    Block,
    Bullets,
    Code,
    Document,
    Fold,
    Grid,
    Numbers,
    Picture,
    Problem,
    Section,
    Text,
    counted,
)
from resnet_flax.reporting.gather import ExperimentFolder, Gathered, RunFolder, device_of
from resnet_flax.runtime.progress import duration

_FOLDED_ROWS = 40  # longer tables are folded
_PNG = b"\x89PNG\r\n\x1a\n"
_LEGEND = (
    "Errors are those of the final step, never of the best epoch. For several seeds, they are the mean ± standard "
    "deviation. The training error is the mean over the training batches since the previous line of metrics, with "
    "augmentation and batch statistics. Training times are those of training steps, without compilation and evaluation."
)


def document(gathered: Gathered, now: datetime.datetime) -> Document:
    """Returns the document of the report.

    Args:
      gathered: The experiments and runs.
      now: The date of the report.
    """
    numbers = Numbers()
    anchors: set[str] = set()
    sections = [_experiment(e, numbers, anchors) for e in gathered.experiments]
    if gathered.others:
        sections.append(_others(gathered.others, numbers, bool(gathered.experiments)))
    if gathered.runs or gathered.unreadable:
        sections.append(appendix.section(gathered, numbers))
    return Document(f"Report on {gathered.name}", _summary(gathered, now), sections)


def _summary(gathered: Gathered, now: datetime.datetime) -> list[Block]:
    runs = gathered.runs
    counts = Counter(run.state for run in runs)
    states = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    items = {
        "date": now.strftime("%Y-%m-%d %H:%M %Z"),
        "contents": f"{counted(len(gathered.experiments), 'experiment')}, {counted(len(runs), 'run')}"
        + (f" ({states})" if runs else ""),
        "data": ", ".join(sorted({run.config.data.name for run in runs})),
        "images": "; ".join(
            sorted({str(run.starts[-1]["data"]) for run in runs if run.starts and "data" in run.starts[-1]})
        ),
        "trained on": ", ".join(sorted({device_of(run) for run in runs if run.starts})),
        tables.TIME: duration(sum(run.seconds for run in runs)) + " in total" if runs else "",
        "commits": ", ".join(sorted({str(run.starts[-1].get("commit") or "unknown") for run in runs if run.starts})),
    }
    items = {term: text for term, text in items.items() if text}
    blocks: list[Block] = [Bullets(list(items.values()), list(items)), Text(_LEGEND)]
    return blocks + [Problem(text) for text in gathered.problems]


def _experiment(experiment: ExperimentFolder, numbers: Numbers, anchors: set[str]) -> Section:
    record = experiment.record
    blocks: list[Block] = [Text(record.question)] if record.question else []
    if record.notes:
        blocks.append(Bullets(list(record.notes)))
    blocks += [_picture(experiment.path, figure.file, figure.caption, numbers) for figure in record.figures]
    blocks += [_table(experiment.path, table.file, table.caption, numbers) for table in record.tables]
    blocks += _published(record.published, experiment.runs, numbers)
    blocks += [Problem(text) for text in experiment.problems]
    if experiment.runs:
        blocks.append(Text(f"Runs ({len(experiment.runs)}, in the appendix): {_names(experiment.runs)}."))
    if record.command:
        blocks.append(Code(record.command))
    return Section(record.title, _anchor(record.experiment, anchors), blocks)


def _anchor(name: str, taken: set[str]) -> str:
    base = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "experiment"
    anchor, count = base, 1
    while anchor in taken | {"runs", "other-runs", "contents"}:
        count += 1
        anchor = f"{base}-{count}"
    taken.add(anchor)
    return anchor


def _names(runs: Sequence[RunFolder]) -> str:
    """Returns a text such as ``plain-20 (seeds 0, 1), plain-56 (seed 0)``."""
    seeds: dict[str, list[int]] = {}
    for run in runs:
        seeds.setdefault(run.name, []).append(run.config.seed)
    unique = {name: sorted(set(of)) for name, of in seeds.items()}
    return ", ".join(
        f"{name} (seed{'s' if len(of) > 1 else ''} {', '.join(map(str, of))})" for name, of in unique.items()
    )


def _picture(folder: Path, file: str, caption: str, numbers: Numbers) -> Block:
    path = folder / file
    if not _is_inside(path, folder):
        return Problem(f"The figure {file} lies outside the experiment's folder. It should show: {caption}")
    try:
        with open(path, "rb") as stream:
            begins = stream.read(len(_PNG))
    except OSError as error:
        return Problem(f"The figure {file} is missing ({error.strerror}). It should show: {caption}")
    if begins != _PNG:
        return Problem(f"The figure {file} is not a PNG file. It should show: {caption}")
    return Picture(path, numbers.next("Figure"), caption)


def _is_inside(path: Path, folder: Path) -> bool:
    """Tells whether a path from a record stays inside the folder and names no pipe or device."""
    try:
        real = Path(os.path.realpath(path))
        return real.is_relative_to(os.path.realpath(folder)) and (real.is_file() or not real.exists())
    except (ValueError, OSError):  # The text is not a path, or is too long.
        return False


def _table(folder: Path, file: str, caption: str, numbers: Numbers) -> Block:
    if not _is_inside(folder / file, folder):
        return Problem(f"The table {file} lies outside the experiment's folder. It should hold: {caption}")
    try:
        with open(folder / file, newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except OSError as error:
        return Problem(f"The table {file} is missing ({error.strerror}). It should hold: {caption}")
    except (ValueError, csv.Error):
        return Problem(f"The table {file} is not a CSV file. It should hold: {caption}")
    if not rows:
        return Problem(f"The table {file} is empty. It should hold: {caption}")
    if any(len(row) != len(rows[0]) for row in rows):
        return Problem(f"The table {file} has rows longer or shorter than its header. It should hold: {caption}")
    grid = Grid(numbers.next("Table"), caption, rows[0], rows[1:])
    if len(grid.rows) <= _FOLDED_ROWS:
        return grid
    return Fold(f"{grid.label}: {caption} ({len(grid.rows)} rows)", [grid])


def _published(keys: Sequence[str], runs: Sequence[RunFolder], numbers: Numbers) -> list[Block]:
    blocks: list[Block] = []
    given = []
    for key in keys:
        try:
            given.append(published.read(key))
        except UserError as error:
            blocks.append(Problem(f"Published numbers are missing: {error}"))
    for found in comparison.compare(given, runs):
        blocks += _comparison(found, numbers)
    return blocks


def _comparison(found: comparison.Comparison, numbers: Numbers) -> list[Block]:
    header = ("network", "paper", "peers", "ours, by the paper's protocol", "ours, by another protocol")
    rows = [(row.network, row.paper, row.peers, row.ours, row.ours_otherwise) for row in found.rows]
    caption = f"{found.metric.capitalize()}: ours and the published ones for {found.data}."
    if found.notes:
        caption += " The notes below list the differences from the paper's protocol by letter."
    blocks: list[Block] = [Grid(numbers.next("Table"), caption, header, rows)]
    if found.notes:
        blocks.append(Bullets(list(found.notes.values()), [f"[{letter}]" for letter in found.notes], fine=True))
    blocks.append(Bullets([*found.sources, *found.remarks], fine=True))
    return blocks


def _others(runs: Sequence[RunFolder], numbers: Numbers, beside_experiments: bool) -> Section:
    measured = tables.columns(line for run in runs for line in run.lines[-1:])
    header = ("network", "data set", "seeds", "steps", *measured.values(), "differs from its config file")
    groups: dict[tuple[str, ...], list[RunFolder]] = {}
    for run in runs:
        changed = protocol.changed_keys(run.config)
        unnamed = {"train.steps", *(name for name, key in configs.KEYS.items() if not key.protocol)}
        differs = ", ".join(f"{key}={value}" for key, value in changed.items() if key not in unnamed)
        steps = f"{run.config.train.steps:,}"
        data = f"{run.config.data.name} {run.config.data.folder}".strip()
        groups.setdefault((run.marked(run.name), data, steps, differs), []).append(run)
    rows = []
    for (name, data, steps, differs), members in groups.items():
        by_seed = {run.config.seed: run for run in reversed(members) if run.finished}
        seeds = f"{len(by_seed)}"
        if unfinished := sum(not run.finished for run in members):
            seeds += f" ({unfinished} unfinished)"
        errors = [_mean(list(by_seed.values()), key) for key in measured]
        rows.append((name, data, seeds, steps, *errors, differs or "—"))
    caption = "Final errors of runs that belong to no experiment."
    blocks: list[Block] = [Grid(numbers.next("Table"), caption, header, rows)]
    for data in dict.fromkeys(run.config.data.name for run in runs):
        trained = [run for run in runs if run.config.data.name == data]
        known = {(run.name, data) for run in trained}
        beside = [t for t in published.read_all() if any((n.network, n.data) in known for n in t.numbers)]
        for found in comparison.compare(beside, trained, only_ours=True):
            blocks += _comparison(found, numbers)
    return Section("Other runs" if beside_experiments else "Runs", "other-runs", blocks)


def _mean(runs: Sequence[RunFolder], key: str) -> str:
    found = [value for run in runs if (value := run.final(key)) is not None]
    return tables.mean_of(key, found, len(runs)) if found else "—"


def problems(of: Document) -> list[str]:
    """Returns the texts of all problems in a document."""
    blocks = [*of.summary, *(block for section in of.sections for block in section.blocks)]
    return [block.text for block in blocks if isinstance(block, Problem)]
