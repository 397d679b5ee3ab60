"""A list of runs: finished ones are skipped, interrupted ones go on, failed ones are noted."""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from experiments import options
from experiments.launchers.attempt import Ending, earlier_failure, is_finished
from resnet_flax import config as configs
from resnet_flax.errors import Diverged, Failed, UserError
from resnet_flax.run_files import RunFiles

_LONGEST_NAME = 120  # characters of a folder's name before the seed; file systems allow 255


@dataclasses.dataclass(frozen=True)
class Run:
    """A config, the folder that it runs in, and what figures and tables call it.

    Attributes:
      config: resolved.
      workdir: the run's folder.
      label: of the network and whatever is varied, the same for every seed.
    """

    config: ConfigDict
    workdir: Path
    label: str

    @property
    def name(self) -> str:
        """What lines of progress call it."""
        return f"{self.label}, seed {self.config.seed}"


@dataclasses.dataclass(frozen=True)
class Case:
    """What an experiment wants run, with every seed.

    Attributes:
      name: of the network, as after the colon of ``--config``: ``plain-56``.
      overrides: config values by dotted key.
      label: see :class:`Run`; by default the name, and the overrides.
    """

    name: str
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    label: str = ""

    def __post_init__(self) -> None:
        if not self.label:
            changes = (f"{key}={value}" for key, value in self.overrides.items())
            object.__setattr__(self, "label", " ".join([self.name, *changes]))


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run ended as.

    Attributes:
      run: which.
      lines: its metrics, as far as it came.
      parameters: how many it trains.
      classes: of its data set.
      failure: ``"diverged"``, ``"crashed"`` or empty.
      reason: of the failure, one line.
    """

    run: Run
    lines: Sequence[Mapping[str, Any]]
    parameters: int
    classes: int
    failure: str = ""
    reason: str = ""

    @property
    def final(self) -> Mapping[str, Any]:
        """The last line of metrics."""
        return self.lines[-1] if self.lines else {}

    @property
    def seconds(self) -> float:
        """Time spent in training steps."""
        return sum(line["seconds"] for line in self.lines)


def plan(cases: Iterable[Case], seeds: Sequence[int]) -> list[Run]:
    """A run for every case and seed, seed by seed; two cases that are the same run become one.

    Raises:
      UserError: a key, a type or a depth does not fit; nothing has been run then.
    """
    planned: dict[Path, Run] = {}
    cases = list(cases)
    for seed in seeds:
        for case in cases:
            run = _run(case, seed)
            planned.setdefault(run.workdir, run)
    return list(planned.values())


def shortened(case: Case, fraction: float) -> Case:
    """The case with that fraction of its config's schedule: steps, milestones, warm-up; evaluated 16 times or more."""
    if fraction == 1:
        return case
    config = plan([case], [0])[0].config

    def part(steps: int) -> int:
        return max(1, round(steps * fraction))

    steps = part(config.train.steps)
    overrides: dict[str, Any] = {
        "train.steps": steps,
        "schedule.milestones": tuple(sorted({part(m) for m in config.schedule.milestones})),
    }
    if config.schedule.warmup_steps:
        overrides["schedule.warmup_steps"] = part(config.schedule.warmup_steps)
    every = max(1, steps // 16)
    for key in ("log_every", "eval_every"):
        if config.train[key] > every:
            overrides[f"train.{key}"] = every
    return dataclasses.replace(case, overrides={**overrides, **case.overrides})


def _run(case: Case, seed: int) -> Run:
    path = config_flags.get_config_filename(flags.FLAGS[options.CONFIG.name]).partition(":")[0]
    given = config_flags.get_override_values(flags.FLAGS[options.CONFIG.name])
    overrides = {**given, **case.overrides, "seed": seed}
    try:
        config = configs.resolve(configs.load(path, case.name, overrides))
        default = configs.resolve(configs.load(path, case.name))
    except UserError as error:
        raise UserError(f"run {case.label} (seed {seed}): {error}") from None
    folder = options.runs_folder() / _folder_name(case.name, _changes(default, config), seed)
    return Run(config, folder, case.label)


def _folder_name(name: str, changes: Mapping[str, Any], seed: int) -> str:
    """``plain-56-dropout=0.5-seed0``: the same for the same config, and another for another."""
    # A section is left out where the key alone says what it is.
    short = {key if key.endswith(".name") else key.rpartition(".")[2]: value for key, value in changes.items()}
    text = "-".join([name, *(f"{key}={value}" for key, value in short.items())])
    text = re.sub(r"[^\w.=+,-]", "", text)
    if len(text) > _LONGEST_NAME:
        text = f"{text[:_LONGEST_NAME]}-{hashlib.sha256(repr(sorted(changes.items())).encode()).hexdigest()[:8]}"
    return f"{text}-seed{seed}"


def _changes(default: ConfigDict, config: ConfigDict) -> dict[str, Any]:
    """The keys, but for the seed and where data lies, in which a run differs from its config file."""
    before, after = configs.flatten(default), configs.flatten(config)
    left_out = ("seed", *configs.LOCATIONS)
    return {k: v for k, v in sorted(after.items()) if before.get(k) != v and k not in left_out}


def print_plan(runs: Sequence[Run]) -> None:
    """``--dry-run``: a line for each run, and what it would do."""
    for run in runs:
        known = run.config, run.workdir
        earlier = earlier_failure(*known)
        what = earlier[0] if earlier else "finished" if is_finished(*known) else f"{run.config.train.steps} steps"
        print(f"{run.workdir}: {run.label} on {run.config.data.name}, seed {run.config.seed}: {what}")


def execute(runs: Sequence[Run]) -> list[Outcome]:
    """Runs them, where ``--launcher`` says; one that diverges or crashes is noted, and the others go on.

    A run that diverged before would diverge again and is not repeated; one that crashed is tried again.

    Returns:
      Their outcomes, in the order of the runs.

    Raises:
      UserError: before the first run, if any of them cannot be.
      Interrupted: a signal came; what was finished stays, and the same command goes on.
    """
    from resnet_flax.training import rules
    from resnet_flax.training import workdir as folders

    for run in runs:
        folders.check_config(run.workdir, run.config)
        if not earlier_failure(run.config, run.workdir):  # which would not be resumed
            rules.check_resume(run.workdir, run.config)
    endings = _launcher()(runs)
    return [outcome(run, *ending) for run, ending in zip(runs, endings, strict=True)]


def _launcher() -> Callable[[Sequence[Run]], list[Ending]]:
    if options.LAUNCHER.value == "ray":
        from experiments.launchers import ray as launcher
    else:
        from experiments.launchers import local as launcher
    return launcher.launch


def outcome(run: Run, failure: str = "", reason: str = "") -> Outcome:
    """What the run's folder holds."""
    files = RunFiles(run.workdir)
    start = (files.starts() or [{}])[-1]
    return Outcome(run, files.mended()[0], start.get("parameters", 0), start.get("classes", 0), failure, reason)


def raise_failures(outcomes: Sequence[Outcome]) -> None:
    """Once figures and tables are written: an exit code that says that not every run came to its end.

    Raises:
      Failed: a run crashed.
      Diverged: none crashed, but one diverged.
    """
    failed = [o for o in outcomes if o.failure]
    if not failed:
        return
    names = "; ".join(f"{o.run.name}: {o.failure}" for o in failed)
    kind = Failed if any(o.failure == "crashed" for o in failed) else Diverged
    raise kind(f"{len(failed)} of {len(outcomes)} runs did not end: {names}")
