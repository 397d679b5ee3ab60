"""Plans the runs of cases: their configs, directories and labels. Finds existing runs in directories of other names."""

import contextlib
import dataclasses
import hashlib
import os
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.errors import UserError
from resnet_flax.runs import resume
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.file_names import CONFIG
from resnet_flax.sweeps.cases import Case, PlannedRun, Request, label_of
from resnet_flax.sweeps.endings import earlier_failure

_LONGEST_NAME = 120  # characters of a directory's name before the seed; file systems allow 255


def plan(cases: Iterable[Case], request: Request) -> list[PlannedRun]:
    """Returns a run for every case and seed, ordered by seed. Cases with equal configs share a run.

    Raises:
      UserError: A case is invalid, for example in a key, a type or a depth; or two cases differ only in their images.
    """
    planned: dict[tuple[Any, ...], PlannedRun] = {}
    defaults: dict[tuple[str, str], ConfigDict] = {}
    cases = list(cases)
    _check_given(cases, request)
    for seed in dict.fromkeys([*request.seeds, *(seed for case in cases for seed in case.seeds)]):
        for case in cases:
            if seed in (case.seeds or request.seeds):
                run = _run(case, seed, request, defaults)
                _check_same_images(planned.setdefault(identity(run.config), run), run)
    return list(planned.values())


def _check_same_images(planned: PlannedRun, run: PlannedRun) -> None:
    """Refuses a run that would share the directory of a planned run, but may read other images."""
    for key in ("folder", "data_dir", "broken"):
        first, second = planned.config.data[key], run.config.data[key]
        if first != second:
            raise UserError(
                f"data.{key}={first} and data.{key}={second}: these runs would share {planned.workdir} and cannot be "
                f"told apart, because the key may change on resume; start a sweep for each, with a --workdir "
                f"of its own and --config.data.{key}"
            )


def shortened(case: Case, fraction: float, request: Request) -> Case:
    """Returns the case with steps, milestones and warm-up scaled by a fraction, and at least 16 evaluations."""
    if fraction == 1:
        return case
    config = plan([case], dataclasses.replace(request, seeds=(0,)))[0].config

    def part(steps: int) -> int:
        return max(1, round(steps * fraction))

    steps = part(config.train.steps)
    overrides: dict[str, Any] = {
        "train.steps": steps,
        "schedule.milestones": tuple(sorted({part(m) for m in config.schedule.milestones})),
    }
    if config.schedule.warmup_steps:
        overrides["schedule.warmup_steps"] = part(config.schedule.warmup_steps)
    # A divisor of the steps, so that the last line of metrics is the mean over as many steps as the lines before.
    most = max(1, steps // 16)
    every = next((n for n in range(most, most // 2, -1) if steps % n == 0), most)
    for key in ("log_every", "eval_every"):
        if config.train[key] > every:
            overrides[f"train.{key}"] = every
    return dataclasses.replace(case, scaled={**case.scaled, **overrides})


def _check_given(cases: Sequence[Case], request: Request) -> None:
    """Raises a UserError for keys that both the command line and the experiment set, because one would be ignored."""
    path, name, given = request.config, request.network, request.overrides
    if "seed" in given:
        raise UserError(f"--config.seed={given['seed']}: give seeds as --seeds={given['seed']}")
    named = [case for case in cases if case.name]
    if name and named:
        raise UserError(f"--config={path}:{name}: the networks come from the experiment; leave out :{name}")
    for key in sorted({key for case in cases for key in case.overrides} & given.keys()):
        raise UserError(f"--config.{key}={given[key]}: the experiment varies this key; leave one of the two out")
    for case in named:
        network = configs.network_name(configs.load(path, case.name).model)
        if network != _canonical(path, case.name):
            raise UserError(f"--config={path}: its get_config({case.name!r}) is the network {network}")
        fixed = configs.network_name(configs.load(path, case.name, given).model)
        if fixed != network:
            keys = ", ".join(f"--config.{key}={given[key]}" for key in configs.NETWORK_KEYS if key in given)
            raise UserError(
                f"{keys}: the experiment chooses its networks, and {case.name} would become {fixed}; leave the flag out"
            )


def _canonical(path: str, name: str) -> str:
    """Returns the shortest name of a network, such as ``residual-20`` for ``residual-basic-20``."""
    c = configs.base()
    family = configs.load(path, name).model.family
    c.model.family = "cifar" if family == "vgg" else family
    return configs.name_of(configs.apply_name(c, name).model)


def _run(case: Case, seed: int, request: Request, defaults: dict[tuple[str, str], ConfigDict]) -> PlannedRun:
    """Returns the run of a case with a seed.

    Args:
      request: The request to the experiment.
      defaults: A cache of the config file's values by case and network, because they are the same for every seed.
    """
    path, name, given = request.config, request.network, request.overrides
    overrides = {**given, **case.scaled, **case.overrides, "seed": seed}
    config = configs.load(path, case.name or name or None, overrides)
    network = case.name or configs.network_name(config.model)
    varied = {key: value for key, value in case.overrides.items() if not is_in_name(key, value)}
    label = case.label or label_of(network, varied)
    try:
        config = configs.resolve(config)
        if (case.name, network) not in defaults:
            named = configs.resolve(configs.load(path, network)) if case.name else _default(path, network, name)
            defaults[case.name, network] = named
    except UserError as error:
        raise UserError(f"run {label} (seed {seed}): {error}") from None
    folder = request.runs / _folder_name(network, _named(defaults[case.name, network], config, varied), seed)
    if config.init.weights or config.init.reset_head:
        from resnet_flax.training import fine_tuning  # Lazy import: it imports jax.

        # Not Hosts().say: with --launcher=ray, this process must not occupy devices.
        config = fine_tuning.adopt(config, folder, lambda line: print(line, file=sys.stderr))
    return PlannedRun(config, folder, label, request.trackers, str(request.folder))


def is_in_name(key: str, value: Any) -> bool:
    """Tells whether a network's name implies a config value. The name ``vgg-16`` implies the family, too."""
    return key in configs.NAME_KEYS and (key != "model.family" or value == "vgg")


def _default(path: str, network: str, name: str) -> ConfigDict:
    """Returns a config file's values for a network, or for the given name if the file does not know the network."""
    with contextlib.suppress(UserError):
        default = configs.resolve(configs.load(path, network))
        if configs.name_of(default.model) == network:
            return default
    return configs.resolve(configs.load(path, name or None))


def _folder_name(name: str, changes: Mapping[str, Any], seed: int) -> str:
    """Returns the name of a run directory, such as ``plain-56-dropout=0.5-seed0``. Different configs differ in it."""
    # Keys lose their section in the name, except for those such as optimizer.name.
    short = {key if key.endswith(".name") else key.rpartition(".")[2]: value for key, value in changes.items()}
    text = "-".join([name, *(f"{key}={value}" for key, value in short.items())])
    text = re.sub(r"[^\w.=+,-]", "", text)
    if len(text) > _LONGEST_NAME:
        text = f"{text[:_LONGEST_NAME]}-{hashlib.sha256(repr(sorted(changes.items())).encode()).hexdigest()[:8]}"
    return f"{text}-seed{seed}"


def _named(default: ConfigDict, config: ConfigDict, varied: Collection[str]) -> dict[str, Any]:
    """Returns the values in a directory's name: those of varied keys, and those that differ from the config file's.

    Keys that change no result, such as train.log_every, are in the name only if the experiment varies them.

    Args:
      default: The config file's values.
      config: The config of the run.
      varied: The keys that the experiment varies. They are in the name even with the config file's value.
    """
    before, after = configs.flatten(default), configs.flatten(config)

    def is_named(key: str, value: Any) -> bool:
        changes_no_result = key in configs.KEYS and not configs.KEYS[key].protocol
        return key in varied or (before.get(key) != value and not changes_no_result)

    left_out = ("seed", *configs.RESUME_MAY_CHANGE)
    return {key: value for key, value in sorted(after.items()) if is_named(key, value) and key not in left_out}


def locate(runs: Sequence[PlannedRun], request: Request) -> list[PlannedRun]:
    """Returns the runs, with the directory of an existing run of equal config in place of a missing one.

    Such a directory may have been named by an earlier version or by the user. An unreadable one is skipped with a line
    that says why.
    """
    own = {run.workdir for run in runs}
    existing: dict[tuple[Any, ...], list[tuple[Path, ConfigDict]]] = {}
    missing = {run.workdir for run in runs if not _holds(run)}
    if missing:
        for folder, config in _configs_in(request.runs, own).items():
            existing.setdefault(identity(config), []).append((folder, config))

    def found(run: PlannedRun) -> PlannedRun:
        for folder, config in existing.get(identity(run.config), ()):
            if configs.differences(config, run.config):  # They differ in a key of another version.
                continue
            try:
                RunDirectory(folder).check()
                resume.check_rules(RunDirectory(folder), run.config)
            except UserError as error:
                print(f"{run.name}: skipped an existing run: {error}", file=sys.stderr)
                continue
            print(f"{run.name}: found in {folder}", file=sys.stderr, flush=True)
            return dataclasses.replace(run, workdir=folder)
        return run

    return [found(run) if run.workdir in missing else run for run in runs]


def identity(config: ConfigDict) -> tuple[Any, ...]:
    """Returns the values of all keys that must be equal for two configs to be of the same run."""
    flat = configs.flatten(config)
    return tuple(flat[name] for name in configs.KEYS if name not in configs.RESUME_MAY_CHANGE)


def _holds(run: PlannedRun) -> bool:
    """Tells whether the run's own directory holds it, or holds something unreadable that is refused later."""
    try:
        there = run.directory.config()
    except UserError:
        return True
    return os.path.lexists(run.workdir / CONFIG) if there is None else not configs.differences(there, run.config)


def _configs_in(folder: Path, without: Collection[Path]) -> dict[Path, ConfigDict]:
    """Returns the configs of the runs in a folder, sorted by name, and prints a line for each unreadable one.

    Args:
      without: Run directories to leave out.
    """
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
            print(f"{error}; skipped", file=sys.stderr)
            continue
        if config is not None:
            found[path] = config
    return found


def summary(runs: Sequence[PlannedRun]) -> str:
    """Returns the number of runs and its factors, such as ``12 runs: 6 networks x 2 seeds (0, 1)``."""
    seeds = sorted({run.config.seed for run in runs})
    labels, names = {run.label for run in runs}, {configs.name_of(run.config.model) for run in runs}
    cases = f"{len(labels)} {'network' if labels == names else 'case'}{'s' * (len(labels) != 1)}"
    listed = f"{len(seeds)} seed{'s' * (len(seeds) != 1)} ({', '.join(map(str, seeds))})"
    by = " x " if len(labels) * len(seeds) == len(runs) else ", "
    return f"{len(runs)} run{'s' * (len(runs) != 1)}: {cases}{by}{listed}"


def print_plan(runs: Sequence[PlannedRun]) -> None:
    """Prints a line for each run: its directory, label, data and seed, and its state or its number of steps."""
    for run in runs:
        earlier = earlier_failure(run.config, run.workdir)
        what = earlier[0] if earlier else "finished" if run.is_finished else f"{run.config.train.steps} steps"
        print(f"{run.workdir}: {run.label} on {run.config.data.name}, seed {run.config.seed}: {what}")
