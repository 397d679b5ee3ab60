"""The appendix of a report: a table of all runs, whose rows unfold into commands, versions and config of a run."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from resnet_flax import config as configs
from resnet_flax.reporting import protocol, tables
from resnet_flax.reporting.document import Block, Code, Fold, Grid, Numbers, Section, Text, counted
from resnet_flax.reporting.gather import Gathered, RunFolder, device_of, started
from resnet_flax.reporting.record import Record
from resnet_flax.runtime.progress import duration

_VERSIONS = ("python", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def section(gathered: Gathered, numbers: Numbers) -> Section:
    """Returns the section with the table of all runs."""
    measured = tables.columns(line for run in gathered.runs for line in run.lines[-1:])
    header = (
        "run", "seed", "status", "steps", *measured.values(), tables.TIME, "data set", "device",
        "commit", "started (UTC)", "experiment", "folder",
    )  # fmt: skip
    records: dict[Path, list[Record]] = {run.path: [] for run in gathered.runs}
    for experiment in gathered.experiments:
        for path in dict.fromkeys(run.path for run in experiment.runs):
            records[path].append(experiment.record)
    rows = [_run_row(run, measured, [r.experiment for r in records[run.path]]) for run in gathered.runs]
    details = [_run_details(run, [r.command for r in records[run.path] if r.command]) for run in gathered.runs]
    for run in gathered.unreadable:
        rows.append(("—", "—", "cannot be read", *("—" for _ in header[4:]), run.label))
        details.append(Fold("why it cannot be read", [Text(run.why)]))
    caption = "All runs. Unfold a row to see the run's commands, versions and config."
    return Section("Appendix: runs", "runs", [Grid(numbers.next("Table"), caption, header, rows, details)])


def _run_row(run: RunFolder, measured: Iterable[str], experiments: Sequence[str]) -> tuple[str, ...]:
    start = run.starts[-1] if run.starts else {}
    return (
        run.name,
        str(run.config.seed),
        run.marked(run.status),
        f"{run.steps:,} of {run.config.train.steps:,}",
        *(_number(key, run.final(key)) for key in measured),
        duration(run.seconds),
        run.config.data.name,
        device_of(run) if run.starts else "—",
        str(start.get("commit") or "—"),
        started(run),
        ", ".join(experiments) or "—",
        run.label,
    )


def _number(key: str, value: float | None) -> str:
    """Returns a metric with two decimals, and an error in percent."""
    return "—" if value is None else f"{100 * value if 'error' in key else value:.2f}"


def _run_details(run: RunFolder, commands: Sequence[str]) -> Fold:
    name, _ = protocol.default_of(run.config)
    changed = [f"{key} = {_value(value)}" for key, value in protocol.changed_keys(run.config).items()]
    differs = protocol.protocol_differences(run.config)
    start = run.starts[-1] if run.starts else {}
    blocks: list[Block] = [Text(f"The run {run.status}: {run.reason}")] if run.reason else []
    blocks += [Text(f"The run was begun under an old rule: {reason}.") for reason in run.old_rules]
    if commands:
        blocks += [Text("The command of its experiment:"), Code("\n".join(commands))]
    blocks += [Text("To run it again alone:"), Code(protocol.train_command(run.config, run.label))]
    versions = [f"{package} {start[package]}" for package in _VERSIONS if package in start]
    if versions:
        times = f"; the run was started {counted(len(run.starts), 'time')}"
        precision = f"; matrix products in precision {start['matmul_precision']}" if "matmul_precision" in start else ""
        blocks.append(Text(f"{', '.join(versions)}{precision}{times}."))
    blocks.append(Text(f"Differences from the paper's recipe for {run.name}: {'; '.join(differs) or 'none'}."))
    if changed:
        blocks += [Text(f"Differences from {name}:"), Code("\n".join(changed))]
    else:
        blocks.append(Text(f"The config is that of {name}, without changes."))
    everything = [f"{key} = {_value(value)}" for key, value in configs.flatten(run.config).items()]
    blocks += [Text("The whole config:"), Code("\n".join(everything))]
    return Fold(f"{run.name}, seed {run.config.seed}: commands, versions, config", blocks)


def _value(value: Any) -> str:
    return repr(value) if isinstance(value, str) else str(value)
