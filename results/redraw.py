"""Draws the figures of results/ again from the data committed beside them, without training.

python -m results.redraw [--output=FOLDER]

Curves are drawn from run directories and from lines of metrics, final errors from table.csv, layers from layers.csv,
and so on. Figures whose data are not committed are not drawn: the curves of digits/experiments and digits/layer_norms.
"""

import csv
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from absl import flags

from resnet_flax import command
from resnet_flax import config as configs
from resnet_flax.figures import cost, curves, final_errors, gates, paper, propagation
from resnet_flax.paths import expanded
from resnet_flax.reporting import protocol
from resnet_flax.reporting.propagation import Measured
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.sweeps.cases import Outcome, PlannedRun
from resnet_flax.sweeps.execution import outcome

HERE = Path(__file__).parent
ROOT = HERE.parent
_DIGITS = 1442  # training images


def read_runs(folder: Path) -> list[Outcome]:
    """Reads runs from the run directories in a folder, which need no checkpoints."""
    runs = [PlannedRun(RunDirectory(path).existing_config(), path, path.name) for path in sorted(folder.iterdir())]
    return [outcome(run) for run in runs]


def read_curves(path: Path) -> list[Outcome]:
    """Reads runs of digits from a file of lines of metrics. Each line names its run with the seed."""
    found: dict[str, list[dict[str, Any]]] = {}
    with open(path, encoding="utf-8") as lines:
        for line in map(json.loads, lines):
            found.setdefault(line["run"], []).append(line)
    return [_outcome(*name.split("-seed"), lines) for name, lines in found.items()]


def read_table(path: Path, seeds: Sequence[int] = (0,), chosen: str = "") -> list[Outcome]:
    """Reads runs from a table of final errors. For two seeds, the mean and the deviation give both errors.

    The configs have only what figures of final errors need: unit, depth and normalisation.

    Args:
      path: The path of table.csv.
      seeds: One or two seeds behind the table.
      chosen: A regular expression; only rows whose label matches are read.
    """
    outcomes = []
    for seed in seeds:
        for row in _rows(path):
            if re.search(chosen, row["network"]):
                line = {"step": 900, "epoch": 900 * 32 / _DIGITS}
                line |= {f"{k.split()[0]}_error": _error(row[f"{k} error %"], seed) for k in ("training", "test")}
                line["train_error"] = line.pop("training_error")
                outcomes.append(_outcome(row["network"], str(seed), [line]))
    return outcomes


def read_rows(path: Path, group: str) -> list[Outcome]:
    """Reads the runs of one group from runs.csv."""
    outcomes = []
    for row in _rows(path):
        if group in row["group"]:
            line = {key: float(row[key]) for key in ("epoch", "train_error", "test_error")} | {"step": int(row["step"])}
            outcomes.append(_outcome(row["run"], row["seed"], [line]))
    return outcomes


def _outcome(label: str, seed: str, lines: list[dict[str, Any]], steps: int = 900, file: str = "digits") -> Outcome:
    overrides = {"train.steps": steps, "seed": int(seed)}
    config = configs.resolve(configs.load(str(ROOT / f"configs/{file}.py"), None, overrides))
    unit, depth = re.match(r"(\w+)-(\d+)", label).groups()
    config.model.unit, config.model.depth = unit, int(depth)
    config.model.norm = "none" if "without BN" in label else "batch"
    return Outcome(PlannedRun(config, HERE / label, label), lines, 0, 10)


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _error(text: str, seed: int) -> float:
    mean, _, deviation = text.partition(" ± ")
    return (float(mean) + (1 - 2 * seed) * float(deviation or 0) / math.sqrt(2)) / 100


def read_layers(path: Path, steps: int, file: str = "digits") -> list[Measured]:
    """Reads the measurements of ``propagation`` after a number of steps. Networks only in summary.csv have diverged."""
    found: dict[tuple[str, ...], dict[str, list[tuple[str, float]]]] = {}
    keys = ("network", "normalisation", "initialisation", "when")
    for row in _rows(path.with_name("summary.csv")):
        found[tuple(row[k] for k in keys)] = {}
    for row in _rows(path):
        layers = found[tuple(row[k] for k in keys)].setdefault(row["quantity"], [])
        layers.append((row["layer"], float(row["value"])))
    measured = []
    for (network, norm, how, when), layers in found.items():
        config = _outcome(f"{network} {norm}", "0", [], steps, file).run.config
        config.model.initialization = how
        measured.append(Measured(config, when, SimpleNamespace(**layers) if layers else None, "diverged"))
    return measured


def read_gates(path: Path) -> dict[str, dict[str, list[tuple[str, float]]]]:
    """Reads the openness of the gates of each network."""
    found: dict[str, dict[str, list[tuple[str, float]]]] = {}
    for row in _rows(path):
        layers = found.setdefault(row["network"], {}).setdefault(row["when"], [])
        layers.append((row["layer"], float(row["mean T"])))
    return found


def read_costs(path: Path) -> Iterable[SimpleNamespace]:
    """Reads the costs of networks."""
    for row in _rows(path):
        unit, depth = row["network"].split("-")
        median, least, most = (float(row[f"{what} ms"]) / 1e3 for what in ("step", "least", "most"))
        step = SimpleNamespace(median=median, least=least, most=most, rounds=range(7))
        adds = int(row["multiply-adds"].replace(",", ""))
        yield SimpleNamespace(unit=unit, depth=int(depth), multiply_adds=adds, step=step)


def redraw(output: Path) -> None:
    """Draws the figures into a folder with the layout of results/."""
    title = "digits: plain and residual networks"
    curves.draw(read_curves(HERE / "digits/curves.jsonl"), output / "digits/curves.png", title)
    outcomes, title = read_runs(HERE / "cifar10/tenth"), "CIFAR-10, 0.1 of the schedule"
    paper.figure_6(outcomes, output / "cifar10/figure6.png", f"{title}, as in the paper's Fig. 6")
    whole = "CIFAR-10, the whole schedule, as in the paper's Fig. 6"
    paper.figure_6(read_runs(HERE / "cifar10/full"), output / "cifar10/figure6-64k.png", whole)
    plain = [outcome for outcome in outcomes if outcome.run.label.startswith("plain")]
    paper.figure_1(plain, output / "cifar10/figure1.png", f"{title}, as in the paper's Fig. 1")
    layers = read_layers(HERE / "cifar10/propagation/layers.csv", outcomes[0].run.config.train.steps, "cifar10")
    propagation.draw(layers, output / "cifar10/propagation", "CIFAR-10")
    chosen, path = read_rows(HERE / "digits/best_rate/runs.csv", "chosen"), output / "digits/best_rate/depth.png"
    final_errors.against_depth(chosen, path, "digits: error against depth, each at its best learning rate")

    here, there = HERE / "digits/experiments", output / "digits/experiments"
    for folder, title in {
        "shortcuts": "shortcuts A, B and C", "initialisation": "initialisation",
        "highway": "plain, highway and residual networks",
    }.items():  # fmt: skip
        outcomes = read_table(here / folder / "table.csv")
        final_errors.side_by_side(outcomes, there / folder / "errors.png", f"digits: {title}")
    table, folder = here / "claims/table.csv", there / "claims"
    cures = read_table(table, chosen=r"(plain|residual)-56( \w+\.|, |$)")  # Labels may have keys or words.
    final_errors.side_by_side(cures, folder / "cures.png", "digits: dropout and weight decay on plain-56")
    shallow = read_table(table, chosen=r"-(8|14)$")
    final_errors.side_by_side(shallow, folder / "shallow.png", "digits: shortcuts in shallow networks")
    norms = read_table(table, chosen=r"plain-(8|20|32|56)( without BN|$)")
    title = "digits: plain networks with and without BN"
    norm = {"batch": "with BN", "none": "without BN"}
    final_errors.against_depth(norms, folder / "normalisation.png", title, lambda o: norm[o.run.config.model.norm])
    depths = read_table(here / "depth_sweep/table.csv", seeds=(0, 1))
    final_errors.against_depth(depths, there / "depth_sweep/depth.png", "digits: error against depth")
    propagation.draw(read_layers(here / "propagation/layers.csv", 450), there / "propagation", "digits")
    opened, runs = read_gates(here / "highway/gate_layers.csv"), read_table(here / "highway/table.csv")
    gates.draw(opened, there / "highway/gates.png", "digits: openness of the gates", protocol.summary(runs))
    costs = list(read_costs(here / "cost/networks.csv"))
    cost.draw(costs, there / "cost/cost.png", "digits: cost of a training step, images of 8x8x1, batch 32")


def main() -> None:
    """Draws the figures in place of the committed ones, or into --output."""
    redraw(expanded(flags.FLAGS.output))


if __name__ == "__main__":
    flags.DEFINE_string("output", str(HERE), "Folder for the figures, with the layout of results/.")
    command.run(main)
