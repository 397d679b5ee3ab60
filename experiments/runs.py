"""A list of runs, one after the other: finished ones are skipped, interrupted ones go on, diverged ones are noted."""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from resnet_flax import config as configs
from resnet_flax.errors import Diverged


@dataclasses.dataclass(frozen=True)
class Run:
    """A config and the folder that it runs in."""

    config: ConfigDict
    workdir: Path

    @property
    def name(self) -> str:
        """Such as ``plain-56``."""
        return configs.name_of(self.config)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run ended as.

    Attributes:
      run: which.
      lines: its metrics, as far as it came.
      parameters: how many it trains.
      classes: of its data set.
      diverged: why it stopped early, or empty.
    """

    run: Run
    lines: Sequence[Mapping[str, Any]]
    parameters: int
    classes: int
    diverged: str = ""

    @property
    def final(self) -> Mapping[str, Any]:
        """The last line of metrics."""
        return self.lines[-1] if self.lines else {}

    @property
    def seconds(self) -> float:
        """Time spent in training steps."""
        return sum(line["seconds"] for line in self.lines)


def config_for(flag: flags.FlagHolder, name: str, seed: int) -> ConfigDict:
    """The config of ``--config=FILE``, asked for by name, with the overrides of the command line and a seed."""
    holder = flags.FLAGS[flag.name]
    overrides = {**config_flags.get_override_values(holder), "seed": seed}
    path = config_flags.get_config_filename(holder).partition(":")[0]
    return configs.resolve(configs.load(path, name, overrides))


def print_plan(runs: Sequence[Run]) -> None:
    """``--dry-run``: a line for each run, and what it would do."""
    from resnet_flax.training import workdir as folders

    for run in runs:
        finished = folders.is_finished(run.workdir, run.config)
        c = run.config
        what = "finished" if finished else f"{c.train.steps} steps"
        print(f"{run.workdir}: {run.name} on {c.data.name}, seed {c.seed}: {what}")


def execute(runs: Sequence[Run]) -> list[Outcome]:
    """Runs them in order.

    Raises:
      UserError: before the first run, if any of them cannot be.
      Interrupted: a signal came; what was finished stays, and the same command goes on.
    """
    from resnet_flax.training import loop, metrics
    from resnet_flax.training import workdir as folders

    for run in runs:
        folders.check_config(run.workdir, run.config)
    outcomes = []
    for i, run in enumerate(runs, start=1):
        print(f"run {i} of {len(runs)}: {run.name}, seed {run.config.seed}", file=sys.stderr, flush=True)
        diverged = ""
        try:
            loop.run(run.config, run.workdir)
        except Diverged as error:
            diverged = str(error)
            print(diverged, file=sys.stderr, flush=True)
        start = json.loads((run.workdir / folders.STARTS).read_text().splitlines()[-1])
        outcomes.append(Outcome(run, metrics.read(run.workdir), start["parameters"], start["classes"], diverged))
    return outcomes
