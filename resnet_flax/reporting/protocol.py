"""Describes how a run was trained: its differences from the config file's defaults and from the paper's recipe."""

import functools
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax import shipped
from resnet_flax.data import datasets
from resnet_flax.errors import UserError
from resnet_flax.sweeps.cases import Outcome

# The order of the config's sections in a list of differences.
_ORDER = ("data", "init", "train", "optimizer", "schedule", "model", "seed", "module")


def protocol_differences(config: ConfigDict, given: Mapping[str, Any] | None = None) -> list[str]:
    """Lists phrases on how a run differs from the paper's recipe for the same network.

    The recipe is that of ``configs/cifar10.py`` or ``configs/imagenet.py``, by the family of the network. Seeds, paths
    of data, and the frequencies of logging, evaluation and checkpoints do not count as differences. Neither do keys
    without effect, such as AdamW's in a run with SGD.

    Args:
      config: The config of the run.
      given: Values by dotted key in which the published network differs from the recipe, such as its shortcut option.
    """
    file = "imagenet" if config.model.family == "imagenet" else "cifar10"
    recipe = _canonical({**_values(f"configs/{file}.py", config), **(given or {})})
    run = _canonical(configs.flatten(config))
    compared = _compared(run)
    known = sorted(configs.KEYS, key=lambda key: _ORDER.index(key.partition(".")[0]))
    of_other_versions = sorted(run.keys() - configs.KEYS.keys())
    differing = [key for key in (*known, *of_other_versions) if key in compared and recipe.get(key) != run[key]]
    return [_phrase(key, run[key], recipe.get(key)) for key in differing]


def summary(outcomes: Sequence[Outcome]) -> str:
    """Returns the protocol of runs in one line, for the title of their figure.

    An example is ``digits, 1,442 training images of 8x8; batch 32, 900 steps; 3 seeds``. Values that differ among the
    runs are all listed.
    """
    with_epoch = [o for o in outcomes if "epoch" in o.final]
    seen = [(o.final["step"] * o.run.config.train.batch_size, o.final["epoch"]) for o in with_epoch]
    return summary_of([o.run.config for o in outcomes], {round(images / epochs) for images, epochs in seen if epochs})


def summary_of(found: Sequence[ConfigDict], images: Iterable[int] = (), trained: bool = True) -> str:
    """Returns the line of :func:`summary` for configs.

    Args:
      found: The configs.
      images: The numbers of training images, if known.
      trained: If false, the line names neither batches nor steps.
    """
    data = _joined(datasets.row(c.data.name).title or c.data.name for c in found)
    count = f"{_joined(images)} training images" if images else "images"
    sides = _joined(c.data.image_size or datasets.row(c.data.name).side or 0 for c in found)
    size = "" if sides == "0" else f" of {sides}x{sides}" if sides.isdecimal() else f" of side {sides}"
    batches, steps = _joined(c.train.batch_size for c in found), _joined(c.train.steps for c in found)
    seeds = sorted({c.seed for c in found})
    parts = [f"{data}, {count}{size}", f"batch {batches}, {steps} steps" if trained else ""]
    return "; ".join(filter(None, [*parts, f"{len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}"]))


def _joined(values: Iterable[Any]) -> str:
    """Joins different values as ``16 or 32``, and more than three whole numbers as ``8 to 512``."""
    found = list(dict.fromkeys(values))
    if len(found) > 3 and all(isinstance(v, int) for v in found):
        return f"{_words(min(found))} to {_words(max(found))}"
    return " or ".join(map(_words, found))


def _canonical(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a config in one form, so that values which mean the same are equal."""
    c = dict(flat)
    if not c["train.bn_group"]:
        c["train.bn_group"] = c["train.batch_size"]
    if not c["data.image_size"]:
        c["data.image_size"] = datasets.row(c["data.name"]).side or 0
    if c["model.stage_units"] and tuple(c["model.stage_units"]) == _usual_units(c):
        c["model.stage_units"] = ()
    if c["schedule.decay_steps"] == c["train.steps"]:
        c["schedule.decay_steps"] = 0
    return c


def _compared(c: Mapping[str, Any]) -> set[str]:
    """Returns the keys to compare: those that change results, without those of the network's name but its family.

    The name ``residual-32`` is that of a network of each family: their widths and units differ.
    """
    ignored = set(configs.NAME_KEYS) - {"model.family"}
    if not c["data.image_size"]:  # The data set is unknown to this project.
        ignored.add("data.image_size")
    if c["data.image_size"] == datasets.row(c["data.name"]).side:
        ignored.add("data.interpolation")
    unused = {name for name, key in configs.KEYS.items() if not key.protocol or not key.applies(c)}
    return set(c) - ignored - unused


def _usual_units(c: Mapping[str, Any]) -> tuple[int, ...]:
    # Imported here, because it imports jax and is needed only for runs that set model.stage_units.
    from resnet_flax.networks import units_of

    try:
        return units_of(c["model.family"], c["model.block"], c["model.depth"])
    except ValueError:  # No network of the family has that depth.
        return ()


def _phrase(key: str, ours: Any, theirs: Any) -> str:
    phrase = configs.KEYS[key].phrase if key in configs.KEYS else ""
    if isinstance(phrase, tuple):
        return phrase[0] if ours else phrase[1]
    return (phrase or f"{key} {{}} instead of {{}}").format(_words(ours), _words(theirs))


def _words(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(_words(v) for v in value) or "the usual"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


@functools.cache
def _load(file: str, name: str) -> ConfigDict:
    return configs.load(str(shipped.folder("configs").parent / file), name)


def _values(file: str, config: ConfigDict) -> dict[str, Any]:
    """Returns a config file's values for the network of a run, by dotted key."""
    loaded = _load(file, configs.name_of(config.model))
    values = configs.flatten(loaded)
    derived = [k for k, v in configs.flatten(config).items() if v is not None and k in values and values[k] is None]
    if derived:  # The run's config holds these values resolved, so they must be resolved here, too.
        same = loaded.copy_and_resolve_references()
        with same.unlocked():
            same.model.update({key.partition(".")[2]: config.model[key.partition(".")[2]] for key in configs.NAME_KEYS})
        try:
            resolved = configs.flatten(configs.resolve(same))
        except UserError:  # The file's values do not fit this network.
            return values
        values |= {key: resolved[key] for key in derived}
    return values


def default_of(config: ConfigDict) -> tuple[str, dict[str, Any]]:
    """Returns the config file that a run most likely came from, as ``FILE:NAME``, and its values by dotted key."""
    # The file comes from the registry of data sets: a run's config must not name a file to execute.
    of_data = datasets.row(config.data.name).config or "configs/cifar10.py"
    file = "configs/imagenet.py" if config.model.family == "imagenet" else of_data
    return f"{file}:{configs.name_of(config.model)}", _values(file, config)


def changed_keys(config: ConfigDict) -> dict[str, Any]:
    """Returns the run's values of the keys in which its config differs from the config file's default."""
    _, default = default_of(config)
    return {key: value for key, value in configs.flatten(config).items() if default.get(key) != value}


def train_command(config: ConfigDict, folder: str) -> str:
    """Returns the ``train.py`` command that trains a config again.

    Args:
      config: The config of the run.
      folder: The run directory. The command reads its config.json if flags cannot express the config.
    """
    name, default = default_of(config)
    flat = configs.flatten(config)
    modules = [f"--module={shlex.quote(file)}" for file in configs.names_in(flat.get("module", ""))]
    again = f"--workdir=runs/{Path(folder).name}-again"
    if flat.keys() != default.keys():  # The config is from another version.
        own = shlex.quote(f"--config=configs/from_json.py:{folder}/config.json")
        return " ".join(["python train.py", own, *modules, shlex.quote(again)])
    changed = changed_keys(config)
    file, _, network = name.partition(":")
    # Values that the file derives from the changed keys are added if the run has other values.
    followed = configs.flatten(configs.load(str(shipped.folder("configs").parent / file), network, changed))
    changed |= {k: v for k, v in flat.items() if v != followed[k] and k not in changed and followed[k] is not None}
    overrides = [shlex.quote(f"--config.{key}={value}") for key, value in changed.items() if key != "module"]
    return " ".join(["python train.py", shlex.quote(f"--config={name}"), *modules, *overrides, shlex.quote(again)])
