"""Creates small run directories and experiment folders for tests, with the project's own writers."""

import csv
import json

from PIL import Image

from resnet_flax import config as configs
from resnet_flax.reporting import record
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.file_names import METRICS
from resnet_flax.runtime.environment import environment


def config(name="residual-20", file="configs/digits.py", **overrides):
    """Returns a resolved config. The argument ``data__flip=True`` sets data.flip."""
    given = {key.replace("__", "."): value for key, value in overrides.items()}
    return configs.resolve(configs.load(file, name, given))


def run(folder, of, test_error=0.1, train_error=0.05, steps=None, lines=10, data=""):
    """Creates the directory of a run after ``steps`` steps (by default all), whose errors fall to the given ones."""
    folder.mkdir(parents=True)
    RunDirectory(folder).write_config(of)
    RunDirectory(folder).record_start(0, 269_722, 10, environment(), data)
    last = of.train.steps if steps is None else steps
    with open(folder / METRICS, "w") as file:
        for i in range(1, lines + 1) if last else ():
            left = (lines - i) / lines
            line = {
                "step": last * i // lines,
                "train_error": train_error + (0.9 - train_error) * left**2,
                "test_error": test_error + (0.9 - test_error) * left**2,
                "seconds": 12.5,
            }
            file.write(json.dumps(line) + "\n")
    return folder


def experiment(folder, runs, **fields):
    """Creates an experiment's folder with a figure, a table and a record."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [("network", "seed", "test error %")]
    for path in runs:
        of, log = RunDirectory(path).config(), RunDirectory(path).metrics()
        rows.append((configs.name_of(of.model), of.seed, f"{100 * log[-1]['test_error']:.2f}"))
    Image.new("RGB", (1560, 630), "white").save(folder / "curves.png")
    with open(folder / "table.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    given = {
        "experiment": "plain_vs_residual",
        "title": "Plain against residual networks",
        "question": "Does a deeper plain network have the higher training error (arXiv:1512.03385, Figs. 1 and 6)?",
        "figures": [record.Figure("curves.png", "Error (%) against steps; a line a run.")],
        "tables": [record.Table("table.csv", "Final test error of each run.")],
        "notes": ["plain-56 ends at 71.5% test error, residual-56 at 3.1%."],
        "published": ["cifar10_table6", "cifar10_peers"],
        "command": "python -m experiments.plain_vs_residual --depths=20,56 --seeds=0,1,2 --workdir=runs/all",
        **fields,
    }
    record.write(record.Record(**given), folder, runs)
    return folder
