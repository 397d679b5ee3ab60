"""How a run was trained, in words: against its config file's default, and against the paper's recipe."""

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

# The sections in the order in which a sentence about a run tells of them.
_ORDER = ("data", "init", "train", "optimizer", "schedule", "model", "seed", "module")


def protocol_differences(config: ConfigDict, given: Mapping[str, Any] | None = None) -> list[str]:
    """Lists in phrases how a run differs from the paper's recipe for the same network; empty for none.

    The recipe is that of ``configs/cifar10.py`` or ``configs/imagenet.py``, by the family of the network. Seeds,
    where data lies, and how often a run logs, evaluates and saves are no differences; nor are keys that have no
    effect, such as AdamW's in a run with SGD.

    Args:
      config: of the run.
      given: keys (dotted) in which the published network differs from the recipe's, such as its shortcut option.
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

    Such as ``digits, 1,442 training images of 8x8; batch 32, 900 steps; 3 seeds``; several values where they differ.
    """
    told = [o for o in outcomes if "epoch" in o.final]
    seen = [(o.final["step"] * o.run.config.train.batch_size, o.final["epoch"]) for o in told]
    return summary_of([o.run.config for o in outcomes], {round(images / epochs) for images, epochs in seen if epochs})


def summary_of(found: Sequence[ConfigDict], images: Iterable[int] = (), trained: bool = True) -> str:
    """Returns :func:`summary` of configs.

    Args:
      found: configs.
      images: how many training images they have, as far as it is known.
      trained: whether their networks were trained; else there are neither batches nor steps to tell of.
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
    """Joins the values that there are: ``16 or 32``, ``8 to 512`` where they are many."""
    found = list(dict.fromkeys(values))
    if len(found) > 3 and all(isinstance(v, int) for v in found):
        return f"{_words(min(found))} to {_words(max(found))}"
    return " or ".join(map(_words, found))


def _canonical(flat: Mapping[str, Any]) -> dict[str, Any]:
    """One form for values that mean the same."""
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
    """Names the keys that change what a run learns; the network itself is compared by its name."""
    ignored = set(configs.NAME_KEYS)
    if not c["data.image_size"]:  # of a data set that this project does not know
        ignored.add("data.image_size")
    if c["data.image_size"] == datasets.row(c["data.name"]).side:
        ignored.add("data.interpolation")
    unused = {name for name, key in configs.KEYS.items() if not key.protocol or not key.applies(c)}
    return set(c) - ignored - unused


def _usual_units(c: Mapping[str, Any]) -> tuple[int, ...]:
    # Imported here: a run that says its depth, as nearly all do, does not wait for jax.
    from resnet_flax.networks import units_of

    try:
        return units_of(c["model.family"], c["model.block"], c["model.depth"])
    except ValueError:  # no network of the family has that depth
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
    """By dotted key, what a config file says for the network of a run."""
    loaded = _load(file, configs.name_of(config.model))
    values = configs.flatten(loaded)
    derived = [k for k, v in configs.flatten(config).items() if v is not None and k in values and values[k] is None]
    if derived:  # from others: they stand as numbers in a run's config, so they must here
        same = loaded.copy_and_resolve_references()
        with same.unlocked():
            same.model.update({key.partition(".")[2]: config.model[key.partition(".")[2]] for key in configs.NAME_KEYS})
        try:
            resolved = configs.flatten(configs.resolve(same))
        except UserError:  # the file's values do not fit this network
            return values
        values |= {key: resolved[key] for key in derived}
    return values


def default_of(config: ConfigDict) -> tuple[str, dict[str, Any]]:
    """The config file that a run most likely came from, with its name, and that file's values by dotted key."""
    # A run's config never names a file that is run: the registry does.
    of_data = datasets.row(config.data.name).config or "configs/cifar10.py"
    file = "configs/imagenet.py" if config.model.family == "imagenet" else of_data
    return f"{file}:{configs.name_of(config.model)}", _values(file, config)


def changed_keys(config: ConfigDict) -> dict[str, Any]:
    """The keys in which a run's config differs from its config file's default, with the run's values."""
    _, default = default_of(config)
    return {key: value for key, value in configs.flatten(config).items() if default.get(key) != value}


def train_command(config: ConfigDict, folder: str) -> str:
    """The ``train.py`` command that runs a config again.

    Args:
      config: of the run.
      folder: where the run that has this config lies, to take its config.json where flags cannot say it.
    """
    name, default = default_of(config)
    flat = configs.flatten(config)
    again = f"--workdir=runs/{Path(folder).name}-again"
    if flat.keys() != default.keys():  # of another version
        return (
            f"python train.py {shlex.quote(f'--config=configs/from_json.py:{folder}/config.json')} {shlex.quote(again)}"
        )
    changed = changed_keys(config)
    file, _, network = name.partition(":")
    # What the file derives from the keys that changed is said, too, where the run has it otherwise.
    followed = configs.flatten(configs.load(str(shipped.folder("configs").parent / file), network, changed))
    changed |= {k: v for k, v in flat.items() if v != followed[k] and k not in changed and followed[k] is not None}
    overrides = [shlex.quote(f"--config.{key}={value}") for key, value in changed.items()]
    return " ".join(["python train.py", shlex.quote(f"--config={name}"), *overrides, shlex.quote(again)])
