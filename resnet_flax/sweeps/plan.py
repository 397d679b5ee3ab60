"""From cases to runs: their configs, their folders and their labels; folders that hold them under other names."""

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
from resnet_flax.sweeps.cases import Asked, Case, Run, label_of
from resnet_flax.sweeps.endings import earlier_failure

_LONGEST_NAME = 120  # characters of a folder's name before the seed; file systems allow 255


def plan(cases: Iterable[Case], asked: Asked) -> list[Run]:
    """Returns a run for every case and seed, seed by seed; two cases that are the same run become one.

    Raises:
      UserError: a key, a type or a depth does not fit; nothing has been run then.
    """
    planned: dict[tuple[Any, ...], Run] = {}
    defaults: dict[tuple[str, str], ConfigDict] = {}
    cases = list(cases)
    _check_given(cases, asked)
    for seed in dict.fromkeys([*asked.seeds, *(seed for case in cases for seed in case.seeds)]):
        for case in cases:
            if seed in (case.seeds or asked.seeds):
                run = _run(case, seed, asked, defaults)
                planned.setdefault(identity(run.config), run)
    return list(planned.values())


def shortened(case: Case, fraction: float, asked: Asked) -> Case:
    """The case with that fraction of its config's schedule: steps, milestones, warm-up; evaluated 16 times or more."""
    if fraction == 1:
        return case
    config = plan([case], dataclasses.replace(asked, seeds=(0,)))[0].config

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


def _check_given(cases: Sequence[Case], asked: Asked) -> None:
    """Refuses what the command line fixes and the experiment varies: one of the two would not be what ran."""
    path, name, given = asked.config, asked.network, asked.overrides
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


def _run(case: Case, seed: int, asked: Asked, defaults: dict[tuple[str, str], ConfigDict]) -> Run:
    """The run of a case with a seed.

    Args:
      defaults: what the config file says for a case and a network, as far as it was read: the same for every seed.
    """
    path, name, given = asked.config, asked.network, asked.overrides
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
    folder = asked.runs / _folder_name(network, _named(defaults[case.name, network], config, varied), seed)
    if config.init.weights or config.init.reset_head:
        from resnet_flax.training import fine_tuning  # it brings jax with it

        config = fine_tuning.adopt(config, folder)
    return Run(config, folder, label, asked.trackers, str(asked.folder))


def is_in_name(key: str, value: Any) -> bool:
    """Says whether a network's name tells a config value: ``vgg-16`` the family, too."""
    return key in configs.NAME_KEYS and (key != "model.family" or value == "vgg")


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


def _named(default: ConfigDict, config: ConfigDict, varied: Collection[str]) -> dict[str, Any]:
    """Returns the values that a folder's name tells: those that the experiment varies, and those that differ.

    Bookkeeping that changes no result, such as train.log_every, is not told unless the experiment varies it.

    Args:
      default: the config of the file, from which a value may differ.
      config: of the run.
      varied: keys of the experiment, which are told where they have the file's value, too.
    """
    before, after = configs.flatten(default), configs.flatten(config)

    def told(key: str, value: Any) -> bool:
        bookkeeping = key in configs.KEYS and not configs.KEYS[key].protocol
        return key in varied or (before.get(key) != value and not bookkeeping)

    left_out = ("seed", *configs.RESUME_MAY_CHANGE)
    return {key: value for key, value in sorted(after.items()) if told(key, value) and key not in left_out}


def located(runs: Sequence[Run], asked: Asked) -> list[Run]:
    """The runs, each in the folder beside its own that holds an equal config under another name, where one does.

    A folder was named by another rule, or by hand. One that cannot be read is passed over, and a line says why.
    """
    own = {run.workdir for run in runs}
    there: dict[tuple[Any, ...], list[tuple[Path, ConfigDict]]] = {}
    missing = {run.workdir for run in runs if not _holds(run)}
    if missing:
        for folder, config in _configs_in(asked.runs, own).items():
            there.setdefault(identity(config), []).append((folder, config))

    def found(run: Run) -> Run:
        for folder, config in there.get(identity(run.config), ()):
            if configs.differences(config, run.config):  # in a key of another version
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

    return [found(run) if run.workdir in missing else run for run in runs]


def identity(config: ConfigDict) -> tuple[Any, ...]:
    """Returns the values of all keys that must be equal where two configs are of the same run."""
    flat = configs.flatten(config)
    return tuple(flat[name] for name in configs.KEYS if name not in configs.RESUME_MAY_CHANGE)


def _holds(run: Run) -> bool:
    """Says whether the run's own folder holds it, or something that cannot be read, which is refused later."""
    try:
        there = run.directory.config()
    except UserError:
        return True
    return os.path.lexists(run.workdir / CONFIG) if there is None else not configs.differences(there, run.config)


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
    """Prints a line for each run, and what it would do."""
    for run in runs:
        earlier = earlier_failure(run.config, run.workdir)
        what = earlier[0] if earlier else "finished" if run.is_finished else f"{run.config.train.steps} steps"
        print(f"{run.workdir}: {run.label} on {run.config.data.name}, seed {run.config.seed}: {what}")
