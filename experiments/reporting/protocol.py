"""How a run was trained, in words: against its config file's default, and against the paper's recipe."""

import functools
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.data import datasets
from resnet_flax.errors import UserError

ROOT = Path(__file__).parents[2]

# The config files by the data sets that they are for. A run's config never names a file that is run.
_FILES = {name: f"configs/{name}.py" for name in ("cifar10", "cifar100", "digits", "folder")}

# What a run computes does not depend on these, or only by rounding; the seed is what a spread is taken over.
NOT_PROTOCOL = (
    "seed",
    *configs.LOCATIONS,
    "train.log_every",
    "train.eval_every",
    "train.eval_batch_size",
    "train.eval_train",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "model.unroll",
    "model.remat",
    "init.adopt",
    "train.accumulate",
)

# Which network it is, is compared by name.
_NETWORK = ("model.family", "model.unit", "model.block", "model.depth")

# In the order of a sentence. Braces: the run's value, then the recipe's. A pair: what to say of True and of False.
_PHRASES: dict[str, str | tuple[str, str]] = {
    "data.name": "data set {} instead of {}",
    "data.image_size": "images of side {} instead of {}",
    "data.resize": "shorter side {} before the crop instead of {}",
    "data.interpolation": "{} interpolation instead of {}",
    "init.weights": "started from the weights {}",
    "init.reset_head": ("last layer started at random", "last layer of those weights"),
    "optimizer.trainable": "training of {} instead of {}",
    "data.subset": "{} training images instead of all",
    "data.validation": "{} training images set aside instead of {}",
    "train.steps": "{} steps instead of {}",
    "train.batch_size": "batches of {} images instead of {}",
    "optimizer.name": "optimizer {} instead of {}",
    "optimizer.learning_rate": "learning rate {} instead of {}",
    "schedule.name": "{} schedule instead of {}",
    "schedule.milestones": "learning rate divided at {} steps instead of {}",
    "schedule.decay_steps": "half a cosine over {} steps",
    "schedule.factor": "learning rate multiplied by {} at each milestone instead of {}",
    "schedule.warmup_steps": "{} steps of warm-up instead of {}",
    "schedule.warmup": "{} warm-up instead of {}",
    "schedule.warmup_learning_rate": "warm-up at a learning rate of {} instead of {}",
    "optimizer.momentum": "momentum {} instead of {}",
    "optimizer.momentum_form": "momentum of the {} instead of the {}",
    "optimizer.nesterov": ("Nesterov momentum", "no Nesterov momentum"),
    "optimizer.weight_decay": "weight decay {} instead of {}",
    "optimizer.ema": "parameters averaged with decay {} instead of {}",
    "train.label_smoothing": "label smoothing {} instead of {}",
    "optimizer.decay": "weight decay on {} instead of {}",
    "data.pad": "padding {} instead of {} pixels",
    "data.pipeline": "{} images instead of {}",
    "data.augmentation": "random crops by {} instead of {}",
    "data.scales": "shorter sides of {} before the crop instead of {}",
    "data.least_area": "crops of at least {} of the image instead of {}",
    "data.colour": "colour augmentation of deviation {} instead of {}",
    "data.flip": ("random flips", "no random flips"),
    "data.transforms": "further augmentations: {}",
    "data.normalization": "images normalised by {} instead of {}",
    "model.width": "width {} instead of {}",
    "model.stage_units": "stages of {} units instead of {}",
    "model.shortcut": "shortcut option {} instead of {}",
    "model.shortcut_padding": "zero channels of shortcuts at {} instead of {}",
    "model.bottleneck_stride": "stride of a bottleneck on its {} convolution instead of its {}",
    "model.initialization": "initialisation {} instead of {}",
    "model.gate_bias": "gate bias {} instead of {}",
    "model.norm": "normalisation {} instead of {}",
    "model.zero_init_last": ("last scale of every unit starting at 0", "last scale of every unit starting at 1"),
    "train.bn_group": "batch normalisation over {} images instead of {}",
    "model.bn_momentum": "batch-normalisation momentum {} instead of {}",
    "model.bn_epsilon": "batch-normalisation epsilon {} instead of {}",
    "model.dtype": "computed in {} instead of {}",
    "model.param_dtype": "parameters in {} instead of {}",
}


def protocol_differences(config: ConfigDict, given: Mapping[str, Any] | None = None) -> list[str]:
    """What a run does otherwise than the paper's recipe for the same network, a phrase each; empty for none.

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
    unused = _unused(run)
    differing = [key for key, value in run.items() if key not in unused and recipe.get(key) != value]
    order = list(_PHRASES)
    return [
        _phrase(key, run.get(key), recipe.get(key))
        for key in sorted(differing, key=lambda k: (order.index(k) if k in order else len(order), k))
    ]


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


def _unused(c: Mapping[str, Any]) -> set[str]:
    """The keys that do not change what a run learns."""
    unused = [*NOT_PROTOCOL, *_NETWORK]
    if not c["data.image_size"]:  # of a data set that this project does not know
        unused.append("data.image_size")
    if c["data.image_size"] == datasets.row(c["data.name"]).side:
        unused.append("data.interpolation")
    if not c["init.weights"]:
        unused.append("init.reset_head")
    if c["optimizer.name"] != "sgd":
        unused.append("optimizer.momentum_form")
    if c["optimizer.name"] == "adamw":
        unused += ["optimizer.momentum", "optimizer.nesterov"]
    else:
        unused += ["optimizer.beta1", "optimizer.beta2", "optimizer.epsilon"]
    if c["optimizer.name"] != "lars":
        unused.append("optimizer.trust_coefficient")
    if c["schedule.name"] != "piecewise":
        unused += ["schedule.milestones", "schedule.factor"]
    if c["schedule.name"] != "cosine":
        unused.append("schedule.decay_steps")
    if not c["schedule.warmup_steps"]:
        unused.append("schedule.warmup")
    if not c["schedule.warmup_steps"] or c["schedule.warmup"] == "linear":
        unused.append("schedule.warmup_learning_rate")
    if c["data.augmentation"] != "scale":
        unused.append("data.scales")
    if c["data.augmentation"] != "inception":
        unused.append("data.least_area")
    if c["model.unit"] == "plain":
        unused += ["model.shortcut", "model.shortcut_padding"]
    if c["model.shortcut"] != "A":
        unused.append("model.shortcut_padding")
    if c.get("model.norm") == "none":
        unused += ["model.bn_momentum", "model.bn_epsilon", "train.bn_group"]
    if c["model.block"] != "bottleneck":
        unused.append("model.bottleneck_stride")
    return set(unused)


def _usual_units(c: Mapping[str, Any]) -> tuple[int, ...]:
    # Imported here: a run that says its depth, as nearly all do, does not wait for jax.
    from resnet_flax.networks import units_of

    try:
        return units_of(c["model.family"], c["model.block"], c["model.depth"])
    except ValueError:  # no network of the family has that depth
        return ()


def _phrase(key: str, ours: Any, theirs: Any) -> str:
    if key not in _PHRASES:
        return f"{key} {_words(ours)} instead of {_words(theirs)}"
    phrase = _PHRASES[key]
    if isinstance(phrase, tuple):
        return phrase[0] if ours else phrase[1]
    return phrase.format(_words(ours), _words(theirs))


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
    return configs.load(str(ROOT / file), name)


def _values(file: str, config: ConfigDict) -> dict[str, Any]:
    """By dotted key, what a config file says for the network of a run."""
    loaded = _load(file, configs.name_of(config.model))
    values = configs.flatten(loaded)
    derived = [k for k, v in configs.flatten(config).items() if v is not None and k in values and values[k] is None]
    if derived:  # from others: they stand as numbers in a run's config, so they must here
        same = loaded.copy_and_resolve_references()
        with same.unlocked():
            same.model.update({key.partition(".")[2]: config.model[key.partition(".")[2]] for key in _NETWORK})
        try:
            resolved = configs.flatten(configs.resolve(same))
        except UserError:  # the file's values do not fit this network
            return values
        values |= {key: resolved[key] for key in derived}
    return values


def default_of(config: ConfigDict) -> tuple[str, dict[str, Any]]:
    """The config file that a run most likely came from, with its name, and that file's values by dotted key."""
    imagenet = config.model.family == "imagenet"
    file = "configs/imagenet.py" if imagenet else _FILES.get(config.data.name, "configs/cifar10.py")
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
    followed = configs.flatten(configs.load(str(ROOT / file), network, changed))
    changed |= {k: v for k, v in flat.items() if v != followed[k] and k not in changed and followed[k] is not None}
    overrides = [shlex.quote(f"--config.{key}={value}") for key, value in changed.items()]
    return " ".join(["python train.py", shlex.quote(f"--config={name}"), *overrides, shlex.quote(again)])
