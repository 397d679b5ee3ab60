"""The table of keys: every key of a config in one row. docs/config.md is the same table as a page."""

import difflib
from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from ml_collections import ConfigDict, config_dict

from resnet_flax.config.key import Key


class _Role(TypedDict, total=False):
    protocol: bool
    resume: Literal["same", "may grow", "may change"]


_STREAM = "data.pipeline=stream"
_RECORD: _Role = {"protocol": False}  # of a key that changes what is recorded, not what is learnt
_PLACE: _Role = {"protocol": False, "resume": "may change"}

# fmt: off
_ROWS = (
    Key("seed", 0, "seed of all random numbers", least=0, below=2**32, **_RECORD),
    Key("module", "", "files that defined what the config names beside what comes with the project; --module runs them",
        **_PLACE),

    Key("model.family", "cifar", "family of networks, which says their stages", choices="networks.families:FAMILIES"),
    Key("model.unit", "residual", "unit that stages are made of", choices="networks.units:UNITS"),
    Key("model.block", "basic", "layers of a unit: 3x3, 3x3; bottleneck: 1x1, 3x3, 1x1; single: 3x3",
        choices="networks.families:BLOCKS", derived=True),
    Key("model.depth", 20, "layers with weights", word="depth (layers with weights)"),
    Key("model.stage_units", (), "units of each stage in place of depth, such as (3, 4, 6)",
        phrase="stages of {} units instead of {}", word="units of the stages"),
    Key("model.stage_filters", (), "filters of each stage's 3x3 convolutions in place of the family's",
        phrase="stages of {} filters instead of {}", word="filters of the stages"),
    Key("model.width", 1.0, "factor of every stage's filters", above=0, phrase="width {} instead of {}"),
    Key("model.hidden", (), "widths of dense layers with ReLU before the last one, such as (4096, 4096)",
        derived=True, phrase="hidden dense layers of {} instead of {}", word="hidden layers"),
    Key("model.dropout", 0.0, "fraction of features dropped after each hidden layer; without one, after pooling",
        least=0, below=1, derived=True, phrase="dropout {} instead of {}"),
    Key("model.shortcut", "A",
        "shortcut where shapes change: no parameters (A), a projection (B); projections always (C)",
        choices="networks.shortcuts:SHORTCUTS", when="model.unit!=plain|highway",
        derived=True, phrase="shortcut option {} instead of {}"),
    Key("model.shortcut_padding", "end", "where option A's zero channels go: behind the others, or on both sides",
        choices=("end", "both"), when="model.unit!=plain|highway and model.shortcut=A",
        phrase="zero channels of shortcuts at {} instead of {}"),
    Key("model.bottleneck_stride", "first", "convolution of a bottleneck that has the stride; torchvision's is the 3x3",
        choices=("first", "3x3"), when="model.block=bottleneck",
        phrase="stride of a bottleneck on its {} convolution instead of its {}"),
    Key("model.initialization", "he", "distribution that kernels are drawn from",
        choices="networks.initialization:INITIALIZATIONS", phrase="initialisation {} instead of {}",
        word="initialisation"),
    Key("model.zero_init_last", False, "start the last BN of each unit with scale 0",
        derived=True, phrase=("last scale of every unit starting at 0", "last scale of every unit starting at 1"),
        word="last scale 0"),
    Key("model.gate_bias", None, "bias of highway gates at the start; None: -1 to -3, by depth",
        phrase="gate bias {} instead of {}"),
    Key("model.norm", "batch", "normalisation behind convolutions; none: a learned bias in its place",
        choices=("batch", "none"), phrase="normalisation {} instead of {}", word="normalisation"),
    Key("model.bn_momentum", 0.9, "momentum of BN's running statistics", least=0, below=1, when="model.norm=batch",
        phrase="batch-normalisation momentum {} instead of {}", word="BN momentum"),
    Key("model.bn_epsilon", 1e-5, "number added to BN's variance", above=0, when="model.norm=batch",
        phrase="batch-normalisation epsilon {} instead of {}", word="BN epsilon"),
    Key("model.dtype", "float32", "type of the computation; bfloat16 on accelerators",
        choices=("float32", "bfloat16", "float16", "float64"), phrase="computed in {} instead of {}",
        word="computed in"),
    Key("model.param_dtype", "float32", "type of the parameters", choices=("float32", "float64"),
        phrase="parameters in {} instead of {}", word="parameters in"),
    Key("model.remat", "none", "parts that the backward pass computes again, to save memory",
        choices=("none", "unit", "stage"), **_RECORD, word="rematerialised"),
    Key("model.unroll", False, "unroll units instead of scanning over them", **_RECORD, word="unrolled"),

    Key("data.name", "cifar10", "data set, or the name of a TFDS set that is prepared",
        phrase="data set {} instead of {}", word="data set"),
    Key("data.data_dir", "", "folder of data sets; empty: TFDS_DATA_DIR, or ~/tensorflow_datasets", **_PLACE),
    Key("data.download", True, "fetch CIFAR-10 and CIFAR-100 where they are not found", **_PLACE),
    Key("data.folder", "", "folder of photographs, a folder for each class; takes the place of data.name", **_PLACE),
    Key("data.class_order", "names", "order of a folder's classes: by name (1, 10, 2) or by number (1, 2, 10)",
        choices=("names", "numbers"), when="data.folder", phrase="classes in the order of {} instead of {}"),
    Key("data.image_size", 0, "side of images after resizing, of photographs after the crop; 0: as they are",
        least=0, phrase="images of side {} instead of {}"),
    Key("data.resize", 0, "shorter side before the crop; 0: data.image_size", least=0,
        phrase="shorter side {} before the crop instead of {}", word="shorter side"),
    Key("data.interpolation", "box", "filter of resizing, always with antialiasing",
        choices=("box", "bilinear", "bicubic"), phrase="{} interpolation instead of {}"),
    Key("data.validation", 0, "training images set aside, always the same; the paper's split: 5000", least=0,
        phrase="{} training images set aside instead of {}", word="validation images"),
    Key("data.subset", 0, "training images that are used, always the same; 0: all that are left", least=0,
        phrase="{} training images instead of all", word="training images"),
    Key("data.normalization", "pixel_mean", "normalisation of pixels, after division by 255",
        choices=("pixel_mean", "channel", "imagenet", "caffe", "none"), phrase="images normalised by {} instead of {}",
        word="normalisation of images"),
    Key("data.pad", 4, "zeros on each side before a random crop", least=0, phrase="padding {} instead of {} pixels",
        word="padding"),
    Key("data.flip", True, "mirror half of the images", phrase=("random flips", "no random flips"), word="flips"),
    Key("data.transforms", "", "further augmentations in this order: names in data/transforms.py, joined by commas",
        phrase="further augmentations: {}"),
    Key("data.pipeline", "resident", "resident: data set in the device's memory; stream: photographs decoded from disk",
        choices=("resident", "stream"), phrase="{} images instead of {}"),
    Key("data.augmentation", "crop", "random crop: at data.resize, at a random scale (the paper's), or Inception's",
        choices="data.augmentation:AUGMENTATIONS", only=_STREAM, phrase="random crops by {} instead of {}"),
    Key("data.scales", (256, 480), "least and greatest shorter side", only=_STREAM, when="data.augmentation=scale",
        phrase="shorter sides of {} before the crop instead of {}"),
    Key("data.least_area", 0.08, "least area of a crop, as a fraction of the image's", above=0, most=1, only=_STREAM,
        when="data.augmentation=inception", phrase="crops of at least {} of the image instead of {}"),
    Key("data.colour", 0.0, "standard deviation of the colour augmentation; the paper's: 0.1", least=0, only=_STREAM,
        phrase="colour augmentation of deviation {} instead of {}", word="colour augmentation"),
    Key("data.broken", "stop", "on an unreadable image: stop, or skip it", choices=("stop", "skip"), only=_STREAM,
        **_PLACE, word="unreadable images"),
    Key("data.workers", 0, "processes that decode; 0: threads alone", least=0, when=_STREAM, **_PLACE),
    Key("data.threads", 0, "threads of each of them; 0: the cores, shared among the workers", least=0, when=_STREAM,
        **_PLACE),

    Key("optimizer.name", "sgd", "optimizer", choices="training.optimizer:OPTIMIZERS",
        phrase="optimizer {} instead of {}", word="optimizer"),
    Key("optimizer.learning_rate", 0.1, "learning rate, before the schedule", above=0,
        derived=True, phrase="learning rate {} instead of {}"),
    Key("optimizer.momentum", 0.9, "momentum", least=0, below=1, when="optimizer.name=sgd|lars",
        phrase="momentum {} instead of {}"),
    Key("optimizer.momentum_form", "gradient", "momentum of gradients, or of updates, as in the paper's framework",
        choices=("gradient", "update"), when="optimizer.name=sgd", phrase="momentum of the {} instead of the {}",
        word="momentum of"),
    Key("optimizer.nesterov", False, "Nesterov momentum", when="optimizer.name=sgd|lars",
        phrase=("Nesterov momentum", "no Nesterov momentum"), word="Nesterov momentum"),
    Key("optimizer.weight_decay", 1e-4, "weight decay, coupled (L2); in adamw decoupled", least=0,
        phrase="weight decay {} instead of {}"),
    Key("optimizer.trainable", "all", "parameters that are trained; head: the dense layers alone, BN's statistics stay",
        choices=("all", "head"), phrase="training of {} instead of {}", word="trained layers"),
    Key("optimizer.decay", "all", "parameters that decay; kernels: neither scales nor biases",
        choices=("all", "kernels"), phrase="weight decay on {} instead of {}", word="decaying parameters"),
    Key("optimizer.beta1", 0.9, "decay of the first moment", when="optimizer.name=adamw",
        word="decay of the first moment"),
    Key("optimizer.beta2", 0.999, "decay of the second moment", when="optimizer.name=adamw",
        word="decay of the second moment"),
    Key("optimizer.epsilon", 1e-8, "number added to the root of the second moment", when="optimizer.name=adamw"),
    Key("optimizer.trust_coefficient", 0.001, "trust coefficient", above=0, when="optimizer.name=lars"),
    Key("optimizer.ema", 0.0, "final decay of a moving average of the parameters, evaluated in their place; 0: none",
        least=0, below=1, phrase="parameters averaged with decay {} instead of {}",
        word="moving average of parameters"),

    Key("init.weights", "", "file of weights to start from, in place of random values",
        phrase="started from the weights {}", word="initial weights"),
    Key("init.reset_head", False, "start the last dense layer at random nonetheless, for classes of your own",
        when="init.weights", phrase=("last layer started at random", "last layer of those weights"),
        word="last layer at random"),
    Key("init.adopt", True, "take normalisation, strides and BN's epsilon from that file's layout", **_RECORD),

    Key("schedule.name", "piecewise", "learning-rate schedule", choices="training.schedule:SCHEDULES",
        phrase="{} schedule instead of {}", word="schedule"),
    Key("schedule.milestones", (32_000, 48_000), "steps at which the rate is multiplied by schedule.factor",
        when="schedule.name=piecewise", derived=True, phrase="learning rate divided at {} steps instead of {}"),
    Key("schedule.factor", 0.1, "factor of the rate at each milestone", when="schedule.name=piecewise",
        phrase="learning rate multiplied by {} at each milestone instead of {}", word="factor of the rate"),
    Key("schedule.warmup_steps", 0, "steps of warm-up", least=0, derived=True,
        phrase="{} steps of warm-up instead of {}"),
    Key("schedule.warmup", "constant", "warm-up at a constant rate, or growing to the schedule's own",
        choices=("constant", "linear"), when="schedule.warmup_steps", phrase="{} warm-up instead of {}"),
    Key("schedule.warmup_learning_rate", 0.01, "rate of a constant warm-up",
        when="schedule.warmup_steps and schedule.warmup=constant",
        phrase="warm-up at a learning rate of {} instead of {}"),
    Key("schedule.decay_steps", 0, "steps of the cosine; 0: train.steps", least=0, when="schedule.name=cosine",
        derived=True, phrase="half a cosine over {} steps"),

    Key("train.steps", 64_000, "training steps", least=1, resume="may grow", derived=True,
        phrase="{} steps instead of {}", word="training steps"),
    Key("train.batch_size", 128, "images of a batch, on all devices together", least=1,
        phrase="batches of {} images instead of {}"),
    Key("train.bn_group", 0, "images that BN normalises together; 0: the global batch", least=0,
        when="model.norm=batch", derived=True, phrase="batch normalisation over {} images instead of {}",
        word="images BN normalises together"),
    Key("train.accumulate", 1, "parts of a device's batch, computed one after the other to save memory", least=1,
        **_RECORD, word="parts of a batch"),
    Key("train.label_smoothing", 0.0, "part of each target that is spread over all classes", least=0, below=1,
        phrase="label smoothing {} instead of {}"),
    Key("train.metrics", "", "metrics beside loss and error: names in training/metric_functions.py, joined by commas",
        **_PLACE),
    Key("train.log_every", 100, "steps between lines of training metrics", least=1, derived=True, **_RECORD),
    Key("train.eval_every", 1_000, "steps between evaluations", least=1, derived=True, **_RECORD),
    Key("train.eval_batch_size", 500, "images of a batch of evaluation", least=1, **_RECORD),
    Key("train.eval_train", False, "evaluate on clean training images as well", **_RECORD),
    Key("train.checkpoint_every", 1_000, "steps between checkpoints", least=1, derived=True, **_RECORD),
    Key("train.keep_checkpoints", 2, "newest checkpoints that are kept", least=1, **_RECORD),
)
# fmt: on

KEYS: dict[str, Key] = {key.name: key for key in _ROWS}

# Keys that do not affect results, so they may change on resume.
RESUME_MAY_CHANGE = tuple(key.name for key in _ROWS if key.resume == "may change")

# Keys that a file in configs/ derives from others. They did not follow these before runs recorded their rules.
DERIVED = frozenset(key.name for key in _ROWS if key.derived)


def base() -> ConfigDict:
    """Returns a config of every key, with the values of the paper's CIFAR-10 recipe (arXiv:1512.03385, section 4.2)."""
    values: dict[str, Any] = {}
    for key in _ROWS:
        section, _, name = key.name.rpartition(".")
        at = values.setdefault(section, {}) if section else values
        at[name] = config_dict.placeholder(float) if key.default is None else key.default
    return ConfigDict(values)


def in_memory(data: Mapping[str, Any]) -> bool:
    """Says whether the section ``data`` of a config keeps the whole data set in memory, instead of reading batches."""
    return data["pipeline"] == "resident"


def flatten(c: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns ``{"model.depth": 20, ...}`` for a config, or for what its JSON holds."""
    flat: dict[str, Any] = {}
    for key, value in c.items():
        if isinstance(value, Mapping | ConfigDict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = tuple(value) if isinstance(value, list) else value
    return flat


# What others call some keys.
_OTHERS_NAMES = {
    "lr": "optimizer.learning_rate", "rate": "optimizer.learning_rate", "wd": "optimizer.weight_decay",
    "epochs": "train.steps", "num_epochs": "train.steps", "max_steps": "train.steps", "num_steps": "train.steps",
    "bs": "train.batch_size", "batch": "train.batch_size", "layers": "model.depth", "num_layers": "model.depth",
    "dataset": "data.name", "scheduler": "schedule.name", "warmup": "schedule.warmup_steps",
    "workers": "data.workers", "num_workers": "data.workers", "activation_checkpointing": "model.remat",
}  # fmt: skip


def namesakes(name: str) -> list[str]:
    """Lists the keys that are called so in another section, or by others: ``lr`` -> ``optimizer.learning_rate``."""
    last = name.rpartition(".")[2].replace("-", "_")
    found = [key for key in KEYS if key.rpartition(".")[2] == last]
    return found or [key for key in [_OTHERS_NAMES.get(last)] if key in KEYS]


def unknown_key(key: str, known: list[str]) -> str:
    """Returns the line that refuses a key: what was given, and the nearest that exist."""
    near = [k for k in namesakes(key) if k in known] or difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    section = [k for k in known if k.rpartition(".")[0] == key.rpartition(".")[0]]
    steps = " (an epoch is training images / train.batch_size of them)" if "epoch" in key else ""
    return f"config has no key {key!r}; did you mean {' or '.join(near or section or known)}?{steps}"
