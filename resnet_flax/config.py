"""Configs: every key there is, how a name such as ``residual-56`` becomes one, and what is refused.

A config is an ``ml_collections.ConfigDict``. The files in ``configs/`` start from :func:`base` and change what
their data set needs. :func:`validate` is called on whatever comes out, before anything is compiled.
"""

import difflib
import importlib.util
import json
import math
import traceback
from collections.abc import Callable, Collection, Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict, config_dict

from resnet_flax.errors import UserError
from resnet_flax.paths import expanded

# What a key with a few values may be.
CHOICES: dict[str, tuple[str, ...]] = {
    "model.family": ("cifar", "imagenet", "vgg", "highway"),
    "model.block": ("basic", "bottleneck", "single"),
    "model.shortcut": ("A", "B", "C"),
    "model.shortcut_padding": ("end", "both"),
    "model.bottleneck_stride": ("first", "3x3"),
    "model.norm": ("batch", "none"),
    "model.remat": ("none", "unit", "stage"),
    "model.dtype": ("float32", "bfloat16", "float16", "float64"),
    "model.param_dtype": ("float32", "float64"),
    "data.normalization": ("pixel_mean", "channel", "imagenet", "caffe", "none"),
    "data.interpolation": ("box", "bilinear", "bicubic"),
    "data.pipeline": ("resident", "stream"),
    "data.class_order": ("names", "numbers"),
    "data.augmentation": ("crop", "scale", "inception"),
    "data.broken": ("stop", "skip"),
    "optimizer.name": ("sgd", "adamw", "lars"),
    "optimizer.momentum_form": ("gradient", "update"),
    "optimizer.decay": ("all", "kernels"),
    "optimizer.trainable": ("all", "head"),
    "schedule.name": ("piecewise", "cosine", "constant"),
    "schedule.warmup": ("constant", "linear"),
}

# The least value of a number; a key that is in neither list may be any number.
_AT_LEAST = {
    "seed": 0,
    "data.image_size": 0,
    "data.resize": 0,
    "data.validation": 0,
    "data.subset": 0,
    "data.pad": 0,
    "data.colour": 0,
    "data.workers": 0,
    "data.threads": 0,
    "optimizer.weight_decay": 0,
    "optimizer.momentum": 0,
    "schedule.warmup_steps": 0,
    "schedule.decay_steps": 0,
    "train.steps": 1,
    "train.batch_size": 1,
    "train.bn_group": 0,
    "train.accumulate": 1,
    "train.log_every": 1,
    "train.eval_every": 1,
    "train.eval_batch_size": 1,
    "train.checkpoint_every": 1,
    "train.keep_checkpoints": 1,
}
_ABOVE = {"optimizer.trust_coefficient": 0, "model.width": 0, "model.bn_epsilon": 0, "optimizer.learning_rate": 0}

# Keys that may be None, and the type they have where they are not.
_OPTIONAL = {"model.gate_bias": float}

# Keys that do not affect results, so they may change on resume: where data lies, how many read it, what ends a run, and
# what is measured on the way.
LOCATIONS = (
    "data.data_dir", "data.folder", "data.download", "data.workers", "data.threads", "data.broken", "train.metrics",
)  # fmt: skip


def base() -> ConfigDict:
    """Every key, with the values of the paper's CIFAR-10 recipe (arXiv:1512.03385, section 4.2)."""
    c = ConfigDict()
    c.seed = 0

    c.model = ConfigDict()
    c.model.family = "cifar"
    c.model.unit = "residual"  # networks/units.py lists them
    c.model.block = "basic"  # layers of a unit: 3x3, 3x3; or "bottleneck": 1x1, 3x3, 1x1; or "single": 3x3
    c.model.depth = 20
    c.model.stage_units = ()  # units of each stage, in place of depth, e.g. (3, 4, 6)
    c.model.stage_filters = ()  # of each stage's 3x3 convolutions, in place of the family's, e.g. (16, 32, 64)
    c.model.width = 1.0  # multiplies every stage's filters
    c.model.hidden = ()  # widths of dense layers with ReLU before the last one, e.g. (4096, 4096)
    c.model.dropout = 0.0  # fraction of features, after each of those or, where there are none, after pooling
    c.model.shortcut = "A"
    c.model.shortcut_padding = "end"  # where option A's zero channels go
    c.model.bottleneck_stride = "first"  # the paper; "3x3" is torchvision's
    c.model.initialization = "he"
    c.model.zero_init_last = False
    c.model.gate_bias = config_dict.placeholder(float)  # of highway gates at the start; None is by depth
    c.model.norm = "batch"  # "none": a learned bias in place of each BN
    c.model.bn_momentum = 0.9
    c.model.bn_epsilon = 1e-5
    c.model.dtype = "float32"  # of the computation; "bfloat16" on accelerators
    c.model.param_dtype = "float32"
    c.model.remat = "none"  # or "unit", "stage": what the backward pass computes again instead of keeping it
    c.model.unroll = False  # every unit in the compiled program, instead of a loop where they are more than a few

    c.data = ConfigDict()
    c.data.name = "cifar10"
    c.data.data_dir = ""  # TFDS_DATA_DIR, or ~/tensorflow_datasets
    c.data.download = True  # CIFAR-10 and -100, where they are not found
    c.data.folder = ""  # of photographs, in a folder for each class; takes the place of `name`
    c.data.class_order = "names"  # of folders: sorted by name (1, 10, 2); or by "numbers" (1, 2, 10)
    c.data.image_size = 0  # resize to that side; 0 leaves images as they are; of photographs, the side of the crop
    c.data.resize = 0  # the shorter side before the crop; 0 is image_size
    c.data.interpolation = "box"  # of that resizing, always with antialiasing
    c.data.validation = 0  # training images set aside, always the same; 5000 is the paper's split
    c.data.subset = 0  # training images that are used, always the same; 0 for all that are left
    c.data.normalization = "pixel_mean"  # after division by 255
    c.data.pad = 4  # zeros on each side, before a random crop
    c.data.flip = True
    c.data.transforms = ""  # more augmentations, in this order: names in data/transforms.py, such as "cutout"
    c.data.pipeline = "resident"  # on the device as a whole; or "stream": photographs, decoded from the disk as they go
    # Of streams:
    c.data.augmentation = "crop"  # at data.resize; or "scale": at a random scale, the paper's; or "inception"
    c.data.scales = (256, 480)  # least and largest shorter side of "scale"
    c.data.least_area = 0.08  # of "inception", a fraction of the image's
    c.data.colour = 0.0  # standard deviation of the paper's colour augmentation, which is 0.1
    c.data.broken = "stop"  # what an image that cannot be read does to the run; or "skip"
    c.data.workers = 0  # processes that decode; 0 for threads alone
    c.data.threads = 0  # of each of them; 0 for as many as there are cores, shared among the workers

    c.optimizer = ConfigDict()
    c.optimizer.name = "sgd"
    c.optimizer.learning_rate = 0.1
    c.optimizer.momentum = 0.9
    c.optimizer.momentum_form = "gradient"  # or "update", the momentum of the paper's framework
    c.optimizer.nesterov = False
    c.optimizer.weight_decay = 1e-4  # coupled (L2) in sgd, decoupled in adamw
    c.optimizer.trainable = "all"  # or "head": the dense layers alone, the rest stays as it is, BN's statistics too
    c.optimizer.decay = "all"  # or "kernels": neither BN's scale and bias nor the dense layer's bias
    c.optimizer.beta1 = 0.9  # adamw
    c.optimizer.beta2 = 0.999
    c.optimizer.epsilon = 1e-8
    c.optimizer.trust_coefficient = 0.001  # lars
    # Final decay of a moving average of the parameters, which is evaluated in their place, with BN's running statistics
    # of the training steps; 0 for none. See training/optimizer.py.
    c.optimizer.ema = 0.0

    c.init = ConfigDict()
    c.init.weights = ""  # file to start from (fine-tuning) in place of random values
    c.init.reset_head = False  # the last dense layer starts at random nonetheless, for classes of one's own
    c.init.adopt = True  # take from that file's layout how its images are normalised, its strides and BN's epsilon

    c.schedule = ConfigDict()
    c.schedule.name = "piecewise"
    c.schedule.milestones = (32_000, 48_000)  # steps at which the rate is multiplied by `factor`
    c.schedule.factor = 0.1
    c.schedule.warmup_steps = 0  # steps at `warmup_learning_rate` before the schedule's own
    c.schedule.warmup = "constant"  # or "linear": growing to the schedule's own rate
    c.schedule.warmup_learning_rate = 0.01  # of a constant one
    c.schedule.decay_steps = 0  # of cosine; 0 is all of train.steps

    c.train = ConfigDict()
    c.train.steps = 64_000
    c.train.batch_size = 128  # of all devices together
    c.train.bn_group = 0  # images that a BN normalises together; 0 is the global batch
    c.train.accumulate = 1  # parts of a device's images that are computed one after the other, to save memory
    c.train.label_smoothing = 0.0  # the part of each target that is spread over all classes
    c.train.metrics = ""  # beside loss and error: names in training/metric_functions.py, such as "gradient_norm"
    c.train.log_every = 100
    c.train.eval_every = 1_000
    c.train.eval_batch_size = 500
    c.train.eval_train = False  # also the error on clean training images, at every evaluation
    c.train.checkpoint_every = 1_000
    c.train.keep_checkpoints = 2
    return c


class _Rule(NamedTuple):
    """An operation of a ``FieldReference``; ml_collections copies its arguments with the config."""

    fn: Callable[..., Any]
    args: tuple[config_dict.FieldReference, ...]


def follow(c: ConfigDict, key: str, rule: Callable[..., Any], *sources: str) -> None:
    """Derives a key from others, ``rule(*their values)``, until somebody sets it: the rule sees what the user sets.

    Args:
      key: dotted, such as ``train.bn_group``.
      rule: a function of the values of the sources. Where they have no sense, such as a batch of 0 images, it may
        raise an ArithmeticError: the key then keeps its value, and :func:`validate` refuses the source.
      sources: dotted keys.
    """

    def section_and_name(dotted: str) -> tuple[ConfigDict, str]:
        section, _, name = dotted.rpartition(".")
        return c[section], name

    def derived(default: Any, *values: Any) -> Any:
        try:
            return rule(*values)
        except ArithmeticError:
            return default

    references = [section.get_ref(name) for section, name in map(section_and_name, sources)]
    section, name = section_and_name(key)
    default = section[name]  # of the key's type
    with c.ignore_type():
        section[name] = config_dict.FieldReference(default, op=_Rule(derived, tuple(references)))


# What the configs in configs/ derive from other keys; before runs recorded their rules, it did not follow these.
DERIVED = frozenset(
    ("model.block", "model.dropout", "model.hidden", "model.shortcut", "model.zero_init_last", "train.bn_group",
     "train.steps", "train.log_every", "train.eval_every", "train.checkpoint_every", "optimizer.learning_rate",
     "schedule.milestones", "schedule.warmup_steps", "schedule.decay_steps")
)  # fmt: skip


def milestones(*steps: int) -> tuple[int, ...]:
    """Returns these steps as ``schedule.milestones`` has to have them: growing, each once, none of them 0."""
    return tuple(sorted({step for step in steps if step > 0}))


def layers_of(family: str, block: str, depth: int, stage_units: tuple[int, ...]) -> int:
    """Counts the layers of the network that these keys of ``model`` name; the depth where they name none."""
    if not stage_units:
        return depth
    from resnet_flax.networks import depth_of

    try:
        return depth_of(family, block, stage_units)
    except (ValueError, KeyError):
        return depth


# The keys of which :func:`layers_of` is a function; and the network's name.
DEPTH_KEYS = ("model.family", "model.block", "model.depth", "model.stage_units")
NETWORK_KEYS = ("model.unit", *DEPTH_KEYS)


def apply_name(c: ConfigDict, name: str) -> ConfigDict:
    """Sets unit, block and depth from ``UNIT-DEPTH`` or ``UNIT-bottleneck-DEPTH`` (``UNIT-basic-DEPTH``).

    Where the name has no block it is the family's usual one: ``basic`` in the CIFAR family, Table 1's for that depth
    in the ImageNet family, ``single`` in the others. ``vgg-DEPTH`` sets the family as well, with dense layers of 4096
    where the family was ImageNet's, else of 512, and dropout of a half. Which units and depths exist is checked by
    :func:`validate`.
    """
    unit, _, rest = name.partition("-")
    block, _, depth = rest.rpartition("-")
    if not unit or not depth.isdecimal() or block not in ("", "basic", "bottleneck") or (unit == "vgg" and block):
        raise UserError(
            f"config name {name!r} is not UNIT-DEPTH or UNIT-bottleneck-DEPTH, such as residual-56, "
            f"residual-bottleneck-164 or vgg-16"
        )
    c.model.unit, c.model.depth = unit, int(depth)
    large = c.model.family == "imagenet"
    if unit == "vgg":
        c.model.family, c.model.unit = "vgg", "plain"
    follow(c, "model.hidden", lambda family: _VGG_HIDDEN[large] if family == "vgg" else (), "model.family")
    follow(c, "model.dropout", lambda family: 0.5 if family == "vgg" else 0.0, "model.family")
    if block:
        c.model.block = block
    else:
        follow(c, "model.block", _usual_block, "model.family", "model.depth")
    return c


_VGG_HIDDEN = {True: (4096, 4096), False: (512, 512)}  # by whether the images are ImageNet's


def name_of(model: Mapping[str, Any]) -> str:
    """The shortest name that :func:`apply_name` turns into this section ``model``: ``residual-56``, ``vgg-16``."""
    unit, block, depth = model["unit"], model["block"], model["depth"]
    unit = "vgg" if (model["family"], unit) == ("vgg", "plain") else unit
    return f"{unit}-{depth}" if block == _usual_block(model["family"], depth) else f"{unit}-{block}-{depth}"


def network_name(model: Mapping[str, Any]) -> str:
    """The :func:`name_of` a section ``model`` that is not resolved: with the layers that its stages come to."""
    depth = layers_of(*(model[key.partition(".")[2]] for key in DEPTH_KEYS))
    return name_of({"unit": model["unit"], "family": model["family"], "block": model["block"], "depth": depth})


def _usual_block(family: str, depth: int) -> str:
    if family in ("vgg", "highway"):
        return "single"
    return "bottleneck" if family == "imagenet" and depth not in (18, 34) else "basic"


def load(path: str, name: str | None = None, overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    """Reads ``get_config`` of a Python file, calls it with a name, and applies overrides by dotted key."""
    file = expanded(path)
    if not file.is_file():
        raise UserError(no_such_file(path))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise UserError(f"--config={path}: the file has no function get_config")
        c = module.get_config(name) if name else module.get_config()
    except (Exception, SystemExit) as error:
        raise explained(error, str(file)) or error from None
    if overrides:
        unknown = [key for key in overrides if key not in flatten(c)]
        if unknown:
            raise UserError(unknown_key(unknown[0], list(flatten(c))))
        c.update_from_flattened_dict(dict(overrides))
    return c


def flatten(c: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"model.depth": 20, ...}`` of a config or of what its JSON holds."""
    flat: dict[str, Any] = {}
    for key, value in c.items():
        if isinstance(value, Mapping | ConfigDict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = tuple(value) if isinstance(value, list) else value
    return flat


def to_json(c: ConfigDict) -> str:
    """The config as JSON: complete, enough to run it again."""
    return json.dumps(c.to_dict(), indent=2) + "\n"


def from_json(text: str) -> ConfigDict:
    """The config that :func:`to_json` wrote."""
    c = base()
    try:
        with c.unlocked():
            c.update_from_flattened_dict(flatten(json.loads(text)))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"not the JSON of a config: {' '.join(str(error).split())}") from None
    return c


def explained(error: BaseException, path: str) -> UserError | None:
    """The refusal of a config file that raised: its line, and its error, without a traceback; None if others raised."""
    if isinstance(error, UserError):
        return error
    what, line = " ".join(str(error).split()), None
    if isinstance(error, SyntaxError):
        what, line = error.msg, error.lineno
    for frame in traceback.extract_tb(error.__traceback__):
        if Path(frame.filename).absolute() == Path(path).absolute():
            line = frame.lineno
    return UserError(f"--config={path}, line {line}: {type(error).__name__}: {what}") if line else None


def no_such_file(path: str) -> str:
    """The line that refuses a config file that is not there."""
    return f"--config={path}: there is no such file; the ones that come with the project are in configs/"


def unknown_key(key: str, known: list[str]) -> str:
    """The line that refuses a key: what was given, and the nearest that exist."""
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    section = [k for k in known if k.rpartition(".")[0] == key.rpartition(".")[0]]
    return f"config has no key {key!r}; did you mean {' or '.join(near or section or known)}?"


def validate(c: ConfigDict) -> None:
    """Refuses a config with an unknown or missing key, a wrong type, or a value that does not fit.

    Raises:
      UserError: one line: the key, what was given, what would fit.
    """
    reference, given = flatten(base()), flatten(c)
    for key in given:
        if key not in reference:
            raise UserError(unknown_key(key, list(reference)))
    for key, default in reference.items():
        if key not in given:
            raise UserError(f"config lacks the key {key!r} (start from resnet_flax.config.base())")
        check_type(key, given[key], default)
    for key, choices in CHOICES.items():
        if given[key] not in choices:
            raise UserError(f"{key}={given[key]!r} is not known; choose one of {', '.join(choices)}")
    for key, least in _AT_LEAST.items():
        if given[key] < least:
            raise UserError(f"{key}={given[key]} must be at least {least}")
    for key, bound in _ABOVE.items():
        if given[key] <= bound:
            raise UserError(f"{key}={given[key]} must be above {bound}")
    for key in ("model.bn_momentum", "model.dropout", "optimizer.momentum", "optimizer.ema", "train.label_smoothing"):
        if not 0 <= given[key] < 1:
            raise UserError(f"{key}={given[key]} must be in [0, 1)")
    if c.train.steps * c.train.batch_size >= 2**32:
        raise UserError(
            f"train.steps={c.train.steps} times train.batch_size={c.train.batch_size} must be below 2**32 images"
        )
    if c.seed >= 2**32:
        raise UserError(f"seed={c.seed} must be below 2**32")
    _check_stream(c)
    milestones = c.schedule.milestones
    if list(milestones) != sorted(set(milestones)):
        raise UserError(f"schedule.milestones={milestones} must grow")
    _check_network(c)


def names_in(text: str) -> tuple[str, ...]:
    """The names in a key that lists them: ``"cutout,grey"``."""
    return tuple(name for part in text.split(",") if (name := part.strip()))


def check_names(key: str, text: str, known: Collection[str]) -> None:
    """Refuses a key that lists a name that is not registered, or one twice.

    Raises:
      UserError: it says which are.
    """
    names = names_in(text)
    for name in names:
        if name not in known:
            raise UserError(f"{key}={text!r}: {name!r} is not known; choose of {', '.join(sorted(known))}")
        if names.count(name) > 1:
            raise UserError(f"{key}={text!r}: {name!r} is there twice")


def in_memory(data: Mapping[str, Any]) -> bool:
    """Whether the section ``data`` of a config has its images lie in memory, as a whole, when a network is trained."""
    return data["pipeline"] == "resident"


def _check_stream(c: ConfigDict) -> None:
    data, defaults = c.data, base().data
    if in_memory(data):
        for key in ("augmentation", "scales", "least_area", "colour", "broken"):
            if data[key] != defaults[key] and not (key == "scales" and tuple(data[key]) == defaults[key]):
                raise UserError(f"data.{key}={data[key]!r} is for streams; set data.pipeline=stream")
        return
    if not data.image_size:
        raise UserError("data.image_size=0: photographs differ in size; set the side of the crop, such as 224")
    if data.resize and data.resize < data.image_size:
        raise UserError(f"data.resize={data.resize} must be at least data.image_size={data.image_size}, or 0")
    if data.pad:
        raise UserError(f"data.pad={data.pad}: streams are not padded; crops are out of larger images")
    scales = tuple(data.scales)
    if data.augmentation == "scale" and (len(scales) != 2 or not data.image_size <= scales[0] <= scales[1]):
        raise UserError(
            f"data.scales={scales} must be the least and the largest shorter side, at least "
            f"data.image_size={data.image_size}"
        )
    if not 0 < data.least_area <= 1:
        raise UserError(f"data.least_area={data.least_area} must be in (0, 1]")


def check_type(key: str, value: Any, default: Any) -> None:
    """Refuses a value of another type than a key's."""
    kind = type(default)
    if key in _OPTIONAL:
        if value is None:
            return
        kind = _OPTIONAL[key]
    fits = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    if kind is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind is tuple:
        fits = isinstance(value, tuple | list) and all(type(v) is int and v > 0 for v in value)
    if not fits:
        raise UserError(f"{key}={value!r} is of type {type(value).__name__}; it must be {wanted(default)}")


def wanted(default: Any) -> str:
    """What a key with that default may be, in words."""
    if isinstance(default, tuple):
        return "a tuple of positive int, such as (2, 3)"
    if default is None:
        return "a float, or None"
    kind = type(default).__name__
    return f"{'an' if kind == 'int' else 'a'} {kind}" + (f", such as {default}" if default != "" else "")


def _check_network(c: ConfigDict) -> None:
    # Imported here: a command that only prints its help does not wait for jax.
    from resnet_flax import memory
    from resnet_flax.networks import build

    try:
        memory.check_network(build(c.model, classes=1), c.model)
    except ValueError as error:
        raise UserError(str(error)) from None


def resolve(c: ConfigDict) -> ConfigDict:
    """Validates a config; a copy in which values that follow from others stand as numbers, for config.json.

    Raises:
      UserError: see :func:`validate`.
    """
    from resnet_flax.networks import depth_of
    from resnet_flax.networks.highway import gate_bias
    from resnet_flax.networks.units import UNITS

    validate(c)
    c = c.copy_and_resolve_references()
    with c.unlocked():
        for key in ("stage_units", "stage_filters", "hidden"):
            c.model[key] = tuple(c.model[key])
        if c.model.stage_units:
            c.model.depth = depth_of(c.model.family, c.model.block, c.model.stage_units)
        # Of gated units alone, so that one command line can hold for the runs of other units, too.
        if not UNITS[c.model.unit].gated:
            c.model.gate_bias = None
        elif c.model.gate_bias is None:
            c.model.gate_bias = gate_bias(c.model.depth)
        if c.data.folder:
            c.data.name = "folder"
        c.schedule.milestones = tuple(c.schedule.milestones)
        c.data.scales = tuple(c.data.scales)
        if c.schedule.name == "cosine" and not c.schedule.decay_steps:
            c.schedule.decay_steps = c.train.steps
    return c


def unresolved(c: ConfigDict) -> ConfigDict:
    """Lets values follow others again where they are what :func:`resolve` made of these; returns the config."""
    from resnet_flax.networks.highway import gate_bias

    if c.schedule.name == "cosine" and c.schedule.decay_steps == c.train.steps:
        c.schedule.decay_steps = 0
    if c.model.gate_bias == gate_bias(c.model.depth):
        c.model.gate_bias = None
    return c


def for_evaluation(c: ConfigDict) -> ConfigDict:
    """A copy whose keys of training images alone are the defaults, so that none of them is refused in evaluation."""
    c, defaults = c.copy_and_resolve_references(), base().data
    for key in ("augmentation", "scales", "least_area", "colour"):
        c.data[key] = defaults[key]
    return c


def with_network_of(trained: ConfigDict, given: ConfigDict, set_by_user: Set[str], where: str) -> ConfigDict:
    """A config to evaluate a trained network by: the one given, resolved, with the section ``model`` of the trained.

    A config's file knows neither what training took from pretrained weights nor what its command line set, so of the
    keys of ``model`` only what the config's name says, and what the user sets now, must be the trained network's.

    Args:
      set_by_user: keys of the config given that the command line sets.
      where: the trained network lies, for messages.

    Raises:
      UserError: the config given names another network.
    """
    trained, given = resolve(trained), resolve(for_evaluation(given))
    named = {"model.family", "model.unit", "model.block", "model.depth"} | set_by_user
    differing = [d for d in differences(trained, given) if d.startswith("model.") and d.partition(":")[0] in named]
    if differing:
        raise UserError(f"{where} holds another network than --config names: {'; '.join(differing)}")
    given.model = trained.model
    return given


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
    """The keys in which a run's config and the one now given differ, with both values.

    ``train.steps`` may grow, and data may lie elsewhere.
    """
    a, b = flatten(old), flatten(new)
    found = []
    for key in sorted(a.keys() | b.keys()):
        same = a.get(key) == b.get(key) or key in LOCATIONS
        if key == "train.steps" and a.get(key, 0) <= b.get(key, 0):
            same = True
        if not same:
            found.append(f"{key}: {a.get(key)!r} there, {b.get(key)!r} now")
    return found
