"""A list of runs: finished ones are skipped, interrupted ones go on, failed ones are noted."""

import contextlib
import dataclasses
import hashlib
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from experiments import options
from experiments.launchers.attempt import Ending, earlier_failure
from resnet_flax import config as configs
from resnet_flax.errors import Diverged, Failed, UserError
from resnet_flax.runs import resume
from resnet_flax.runs.directory import CONFIG, RunDirectory

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
    def directory(self) -> RunDirectory:
        """What the folder holds."""
        return RunDirectory(self.workdir)

    @property
    def is_finished(self) -> bool:
        """Whether the folder holds this very run, to its last step."""
        return self.directory.is_finished(self.config)

    @property
    def name(self) -> str:
        """What lines of progress call it."""
        return f"{self.label}, seed {self.config.seed}"


@dataclasses.dataclass(frozen=True)
class Case:
    """What an experiment wants run, with every seed.

    Attributes:
      name: of the network, as after the colon of ``--config``: ``plain-56``; empty for the one that ``--config`` names.
      overrides: config values by dotted key, which the command line must not set.
      label: see :class:`Run`; by default the network's name, and the overrides that it does not say.
      scaled: config values that the experiment makes of others, such as a part of the steps or of a published width;
        the command line may set these keys for whatever they are made of.
    """

    name: str
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    label: str = ""
    scaled: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name and not self.label:
            object.__setattr__(self, "label", _label(self.name, self.overrides))


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run ended as.

    Attributes:
      run: which.
      lines: its metrics, as far as it came.
      parameters: how many it trains.
      classes: of its data set.
      failure: ``"diverged"``, ``"failed"`` (the reason is no error of the program), ``"crashed"`` or empty.
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
    _check_given(cases)
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
    return dataclasses.replace(case, scaled={**case.scaled, **overrides})


def _given() -> tuple[str, str, dict[str, Any]]:
    """Reads what the command line says of the config: its file, the name after the colon, and the keys that it sets."""
    flag = flags.FLAGS[options.CONFIG.name]
    path, _, name = config_flags.get_config_filename(flag).partition(":")
    return path, name, config_flags.get_override_values(flag)


def _check_given(cases: Sequence[Case]) -> None:
    """Refuses what the command line fixes and the experiment varies: one of the two would not be what ran."""
    path, name, given = _given()
    if "seed" in given:
        raise UserError(f"--config.seed={given['seed']}: give seeds as --seeds={given['seed']}")
    named = [case for case in cases if case.name]
    if name and named:
        raise UserError(f"--config={path}:{name}: the networks come from the experiment; leave out :{name}")
    for key in sorted({key for case in cases for key in case.overrides} & given.keys()):
        raise UserError(f"--config.{key}={given[key]}: the experiment varies it; leave one of the two out")
    for case in named:
        network = configs.network_name(configs.load(path, case.name).model)
        if network != _canonical(path, case.name):
            raise UserError(f"--config={path}: its get_config({case.name!r}) is the network {network}")
        fixed = configs.network_name(configs.load(path, case.name, given).model)
        if fixed != network:
            keys = ", ".join(f"--config.{key}={given[key]}" for key in configs.NETWORK_KEYS if key in given)
            raise UserError(f"{keys}: the experiment names its networks, here {case.name}, which would be {fixed}")


def _canonical(path: str, name: str) -> str:
    """The shortest name of the network: ``residual-20`` of ``residual-basic-20``."""
    c = configs.base()
    family = configs.load(path, name).model.family
    c.model.family = "cifar" if family == "vgg" else family
    return configs.name_of(configs.apply_name(c, name).model)


def _run(case: Case, seed: int) -> Run:
    path, name, given = _given()
    overrides = {**given, **case.scaled, **case.overrides, "seed": seed}
    config = configs.load(path, case.name or name or None, overrides)
    network = case.name or configs.network_name(config.model)
    label = case.label or _label(network, {k: v for k, v in case.overrides.items() if not _is_in_name(k, v)})
    try:
        config = configs.resolve(config)
        default = configs.resolve(configs.load(path, network)) if case.name else _default(path, network, name)
    except UserError as error:
        raise UserError(f"run {label} (seed {seed}): {error}") from None
    folder = options.runs_folder() / _folder_name(network, _changes(default, config), seed)
    if config.init.weights or config.init.reset_head:
        from resnet_flax.training import fine_tuning  # it brings jax with it

        config = fine_tuning.adopt(config, folder)
    return Run(config, folder, label)


def _label(network: str, overrides: Mapping[str, Any]) -> str:
    return " ".join([network, *(f"{key}={value}" for key, value in overrides.items())])


def _is_in_name(key: str, value: Any) -> bool:
    """Whether a network's name says a config value: ``vgg-16`` the family, too."""
    return key in ("model.unit", "model.block", "model.depth") or (key, value) == ("model.family", "vgg")


def _default(path: str, network: str, name: str) -> ConfigDict:
    """Reads what a config file says for a network; where it does not take its name, for the name that was given."""
    with contextlib.suppress(UserError):
        default = configs.resolve(configs.load(path, network))
        if configs.name_of(default.model) == network:
            return default
    return configs.resolve(configs.load(path, name or None))


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
    left_out = ("seed", *configs.RESUME_MAY_CHANGE)
    return {k: v for k, v in sorted(after.items()) if before.get(k) != v and k not in left_out}


def located(runs: Sequence[Run]) -> list[Run]:
    """The runs, each in the folder beside its own that holds an equal config under another name, where one does.

    A folder was named by another rule, or by hand. One that cannot be read is passed over, and a line says why.
    """
    own = {run.workdir for run in runs}
    there = _configs_in(options.runs_folder(), own) if any(not _holds_run(folder) for folder in own) else {}

    def found(run: Run) -> Run:
        for folder, config in there.items():
            if configs.differences(config, run.config) or config.train.steps != run.config.train.steps:
                continue
            try:
                RunDirectory(folder).check()
                resume.check_rules(RunDirectory(folder), run.config)
            except UserError as error:
                print(f"{run.name}: passed over: {error}", file=sys.stderr)
                continue
            print(f"{run.name}: found in {folder}", file=sys.stderr, flush=True)
            return dataclasses.replace(run, workdir=folder)
        return run

    return [run if _holds_run(run.workdir) else found(run) for run in runs]


def _holds_run(folder: Path) -> bool:
    return os.path.lexists(folder / CONFIG)


def _configs_in(folder: Path, without: Collection[Path]) -> dict[Path, ConfigDict]:
    """The configs of other runs in a folder, in the order of their names; a line for each that cannot be read."""
    try:
        inside = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error.strerror}") from None
    found = {}
    for path in inside:
        try:
            config = None if path in without else RunDirectory(path).config()
        except UserError as error:
            print(f"{error}; passed over", file=sys.stderr)
            continue
        if config is not None:
            found[path] = config
    return found


def print_plan(runs: Sequence[Run]) -> None:
    """``--dry-run``: a line for each run, and what it would do."""
    for run in runs:
        earlier = earlier_failure(run.config, run.workdir)
        what = earlier[0] if earlier else "finished" if run.is_finished else f"{run.config.train.steps} steps"
        print(f"{run.workdir}: {run.label} on {run.config.data.name}, seed {run.config.seed}: {what}")


def execute(runs: Sequence[Run]) -> list[Outcome]:
    """Runs them, where ``--launcher`` says; one that diverges, fails or crashes is noted, and the others go on.

    A run that diverged before would diverge again and is not repeated; one that failed or crashed is tried again.

    Returns:
      Their outcomes, in the order of the runs.

    Raises:
      UserError: before the first run, if any of them cannot be; it names all that cannot.
      Interrupted: a signal came; what was finished stays, and the same command goes on.
    """
    _check(runs)
    endings = _launcher()(runs)
    return [outcome(run, *ending) for run, ending in zip(runs, endings, strict=True)]


def _check(runs: Sequence[Run]) -> None:
    """Refuses runs of which one could not start."""
    import jax

    from resnet_flax.training.readiness import Readiness

    # What a cluster's workers have is not known here, and this process takes no devices from them.
    readiness = Readiness(jax.device_count() if options.LAUNCHER.value == "local" else None)
    problems: dict[str, list[str]] = {}
    for run in runs:
        try:
            run.directory.check()
            if not earlier_failure(run.config, run.workdir):  # which would not be resumed
                readiness.check(run.config, run.workdir)
        except UserError as error:
            problems.setdefault(str(error), []).append(run.name)
    if problems:
        raise UserError("; ".join(f"{', '.join(names)}: {error}" for error, names in problems.items()))


def _launcher() -> Callable[[Sequence[Run]], list[Ending]]:
    if options.LAUNCHER.value == "ray":
        from experiments.launchers import ray as launcher
    else:
        from experiments.launchers import local as launcher
    return launcher.launch


def outcome(run: Run, failure: str = "", reason: str = "") -> Outcome:
    """What the run's folder holds."""
    start = (run.directory.starts() or [{}])[-1]
    return Outcome(run, run.directory.mended()[0], start.get("parameters", 0), start.get("classes", 0), failure, reason)


def raise_failures(outcomes: Sequence[Outcome]) -> None:
    """Once figures and tables are written: an exit code that says that not every run came to its end.

    Raises:
      Failed: a run failed or crashed.
      Diverged: none did, but one diverged.
    """
    failed = [o for o in outcomes if o.failure]
    if not failed:
        return
    names = "; ".join(f"{o.run.name}: {o.failure}" for o in failed)
    kind = Failed if any(o.failure != "diverged" for o in failed) else Diverged
    raise kind(f"{len(failed)} of {len(outcomes)} runs did not end: {names}")
