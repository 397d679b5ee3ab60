"""The table of config keys, one row for each key. docs/config.md is generated from it."""

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from ml_collections import ConfigDict, config_dict

from resnet_flax.config.key import Key


class _Role(TypedDict, total=False):
    protocol: bool
    resume: Literal["same", "may grow", "may change"]


_STREAM = "data.pipeline=stream"
_NOT_PROTOCOL: _Role = {"protocol": False}  # reports do not compare the key with published recipes
_MAY_CHANGE: _Role = {"protocol": False, "resume": "may change"}  # the key has no effect on results

# Conditions on names exclude the project's that do not read the key: an optimizer of the user's own may read any.
# fmt: off
_ROWS = (
    Key("seed", 0, "seed of all random numbers", least=0, below=2**32, **_NOT_PROTOCOL),
    Key("module", "",
        "your Python files that define names used in this config; training records them, --module runs them",
        **_MAY_CHANGE),

    Key("model.family", "cifar", "family of networks; it sets the stages and their filters",
        choices="networks.families:FAMILIES"),
    Key("model.unit", "residual", "unit that the stages repeat", choices="networks.units:UNITS"),
    Key("model.block", "basic", "convolutions of a unit; basic: 3x3, 3x3; bottleneck: 1x1, 3x3, 1x1; single: 3x3",
        choices="networks.families:BLOCKS", derived=True),
    Key("model.depth", 20, "number of layers with weights", word="depth (layers with weights)"),
    Key("model.stage_units", (), "number of units in each stage, such as (3, 4, 6); replaces model.depth",
        phrase="stages of {} units instead of {}", word="units of the stages"),
    Key("model.stage_filters", (), "number of filters of each stage's 3x3 convolutions; empty: the family's",
        phrase="stages of {} filters instead of {}", word="filters of the stages"),
    Key("model.width", 1.0, "factor by which every stage's number of filters is multiplied", above=0,
        phrase="width {} instead of {}"),
    Key("model.hidden", (), "widths of the hidden dense layers (with ReLU) before the last layer, such as (4096, 4096)",
        derived=True, phrase="hidden dense layers of {} instead of {}", word="hidden layers"),
    Key("model.dropout", 0.0, "dropout rate after each hidden dense layer, or after pooling if there is none",
        least=0, below=1, derived=True, phrase="dropout {} instead of {}"),
    Key("model.shortcut", "A",
        "the paper's shortcut option. A: no parameters; B: projection where shapes change; C: projection in every unit",
        choices="networks.shortcuts:SHORTCUTS", when="model.unit!=plain|highway", derived=True,
        phrase="shortcut option {} instead of {}"),
    Key("model.shortcut_padding", "end",
        "where option A adds zero channels: after the others, or half before and half after", choices=("end", "both"),
        when="model.unit!=plain|highway and model.shortcut=A", phrase="zero channels of shortcuts at {} instead of {}"),
    Key("model.bottleneck_stride", "first",
        "which convolution of a bottleneck has the stride: the first 1x1 (the paper's) or the 3x3 (torchvision's)",
        choices=("first", "3x3"), when="model.block=bottleneck",
        phrase="stride of a bottleneck on its {} convolution instead of its {}"),
    Key("model.initialization", "he", "initialisation of kernels",
        choices="networks.initialization:INITIALIZATIONS", phrase="initialisation {} instead of {}",
        word="initialisation"),
    Key("model.zero_init_last", False, "initialise the scale of each unit's last BN to 0 instead of 1",
        derived=True, phrase=("last scale of every unit starting at 0", "last scale of every unit starting at 1"),
        word="last scale 0"),
    Key("model.gate_bias", None, "initial bias of highway gates; None: -1 to -3, by depth",
        phrase="gate bias {} instead of {}"),
    Key("model.norm", "batch", "normalisation after each convolution; none: a learned bias instead",
        choices=("batch", "none"), phrase="normalisation {} instead of {}", word="normalisation"),
    Key("model.bn_momentum", 0.9, "momentum of BN's running statistics: the weight of the old value at each update",
        least=0, below=1, when="model.norm=batch", phrase="batch-normalisation momentum {} instead of {}",
        word="BN momentum"),
    Key("model.bn_epsilon", 1e-5, "number added to BN's variance before the square root", above=0,
        when="model.norm=batch", phrase="batch-normalisation epsilon {} instead of {}", word="BN epsilon"),
    Key("model.dtype", "float32", "floating-point type of the computation; bfloat16 is faster on accelerators",
        choices=("float32", "bfloat16", "float16", "float64"), phrase="computed in {} instead of {}",
        word="computed in"),
    Key("model.param_dtype", "float32", "floating-point type of the parameters", choices=("float32", "float64"),
        phrase="parameters in {} instead of {}", word="parameters in"),
    Key("model.remat", "none",
        "what the backward pass rematerialises to save memory: nothing, each unit, or each stage",
        choices=("none", "unit", "stage"), **_NOT_PROTOCOL, word="rematerialised"),
    Key("model.unroll", False, "unroll units instead of scanning over them", **_NOT_PROTOCOL, word="unrolled"),

    Key("data.name", "cifar10", "data set: digits, cifar10, cifar100, imagenet2012, or any prepared TFDS data set",
        phrase="data set {} instead of {}", word="data set"),
    Key("data.data_dir", "", "folder that holds the data sets; empty: TFDS_DATA_DIR if set, else ~/tensorflow_datasets",
        **_MAY_CHANGE),
    Key("data.download", True, "download CIFAR-10 or CIFAR-100 if it is not found", **_MAY_CHANGE),
    Key("data.folder", "", "folder of your own photographs, one subfolder for each class; replaces data.name",
        **_MAY_CHANGE),
    Key("data.class_order", "names", "how the class folders are sorted: as names (1, 10, 2) or as numbers (1, 2, 10)",
        choices=("names", "numbers"), when="data.folder", phrase="classes in the order of {} instead of {}"),
    Key("data.image_size", 0, "side of the images that the network sees, in pixels; 0: the data set's own",
        least=0, phrase="images of side {} instead of {}"),
    Key("data.resize", 0, "shorter side that images are resized to before the crop, in pixels; 0: data.image_size",
        least=0, derived=True, phrase="shorter side {} before the crop instead of {}", word="shorter side"),
    Key("data.interpolation", "box", "resizing filter, always with antialiasing",
        choices=("box", "bilinear", "bicubic"), phrase="{} interpolation instead of {}"),
    Key("data.validation", 0,
        "number of training images held out as a validation split, the same in every run; the paper: 5000", least=0,
        phrase="{} training images set aside instead of {}", word="validation images"),
    Key("data.subset", 0, "number of training images used, the same in every run; 0: all that are not held out",
        least=0, phrase="{} training images instead of all", word="training images"),
    Key("data.normalization", "pixel_mean",
        "how pixels are normalised: by statistics of the training images (pixel_mean, channel) or by constants",
        choices=("pixel_mean", "channel", "imagenet", "caffe", "none"), phrase="images normalised by {} instead of {}",
        word="normalisation of images"),
    Key("data.pad", 4, "pixels of zero padding on each side before the random crop", least=0,
        phrase="padding {} instead of {} pixels", word="padding"),
    Key("data.flip", True, "mirror each training image with probability one half",
        phrase=("random flips", "no random flips"), word="flips"),
    Key("data.transforms", "",
        "further augmentations, applied in this order: names from data/transforms.py, separated by commas",
        phrase="further augmentations: {}"),
    Key("data.pipeline", "resident",
        "resident: the whole data set in device memory; stream: photographs decoded from disk",
        choices=("resident", "stream"), phrase="{} images instead of {}"),
    Key("data.augmentation", "crop",
        "random crop; crop: at data.resize; scale: at a random scale, as in the paper; inception: of random area",
        choices="data.crops:CROPS", only=_STREAM, phrase="random crops by {} instead of {}"),
    Key("data.scales", (256, 480), "smallest and largest shorter side of the random scale, in pixels", only=_STREAM,
        when="data.augmentation=scale", derived=True, phrase="shorter sides of {} before the crop instead of {}"),
    Key("data.least_area", 0.08, "smallest area of Inception's crop, as a fraction of the image", above=0, most=1,
        only=_STREAM, when="data.augmentation=inception", phrase="crops of at least {} of the image instead of {}"),
    Key("data.colour", 0.0, "standard deviation of AlexNet's colour augmentation; the paper: 0.1; 0: none", least=0,
        only=_STREAM, phrase="colour augmentation of deviation {} instead of {}", word="colour augmentation"),
    Key("data.broken", "stop", "on an unreadable image: stop the run, or skip the image", choices=("stop", "skip"),
        only=_STREAM, **_MAY_CHANGE, word="unreadable images"),
    Key("data.workers", 0, "number of worker processes that decode images; 0: threads of the main process", least=0,
        when=_STREAM, **_MAY_CHANGE),
    Key("data.threads", 0, "decoding threads of each worker process; 0: as many as cores, shared among the workers",
        least=0, when=_STREAM, **_MAY_CHANGE),

    Key("optimizer.name", "sgd", "optimizer", choices="training.optimizer:OPTIMIZERS",
        phrase="optimizer {} instead of {}", word="optimizer"),
    Key("optimizer.learning_rate", 0.1, "base learning rate, which the schedule multiplies", above=0,
        derived=True, phrase="learning rate {} instead of {}"),
    Key("optimizer.momentum", 0.9, "momentum", least=0, below=1, when="optimizer.name!=adamw",
        phrase="momentum {} instead of {}"),
    Key("optimizer.momentum_form", "gradient",
        "what momentum accumulates: gradients (PyTorch, optax) or updates (Caffe, the paper's framework)",
        choices=("gradient", "update"), when="optimizer.name!=adamw|lars",
        phrase="momentum of the {} instead of the {}", word="momentum of"),
    Key("optimizer.nesterov", False, "use Nesterov momentum", when="optimizer.name!=adamw",
        phrase=("Nesterov momentum", "no Nesterov momentum"), word="Nesterov momentum"),
    Key("optimizer.weight_decay", 1e-4, "weight decay: L2 regularisation in sgd and lars, decoupled in adamw", least=0,
        phrase="weight decay {} instead of {}"),
    Key("optimizer.trainable", "all",
        "parameters that are trained; head: only the dense layers, with BN's statistics frozen",
        choices=("all", "head"), phrase="training of {} instead of {}", word="trained layers"),
    Key("optimizer.decay", "all", "parameters with weight decay; kernels: no scales and no biases",
        choices=("all", "kernels"), phrase="weight decay on {} instead of {}", word="decaying parameters"),
    Key("optimizer.beta1", 0.9, "decay of the first moment (beta1)", when="optimizer.name!=sgd|lars",
        word="decay of the first moment"),
    Key("optimizer.beta2", 0.999, "decay of the second moment (beta2)", when="optimizer.name!=sgd|lars",
        word="decay of the second moment"),
    Key("optimizer.epsilon", 1e-8, "number added to the square root of the second moment",
        when="optimizer.name!=sgd|lars"),
    Key("optimizer.trust_coefficient", 0.001, "trust coefficient of LARS", above=0, when="optimizer.name!=sgd|adamw"),
    Key("optimizer.ema", 0.0,
        "final decay of a moving average of the parameters, which evaluation uses instead of them; 0: none", least=0,
        below=1, phrase="parameters averaged with decay {} instead of {}", word="moving average of parameters"),

    Key("init.weights", "", "file of pretrained weights to start from; empty: random initialisation",
        phrase="started from the weights {}", word="initial weights"),
    Key("init.reset_head", False,
        "initialise the last dense layer at random instead of from init.weights, for other classes",
        when="init.weights", phrase=("last layer started at random", "last layer of those weights"),
        word="last layer at random"),
    Key("init.adopt", True,
        "take shortcuts, strides, BN's epsilon and image normalisation from the file in init.weights", **_NOT_PROTOCOL),

    Key("schedule.name", "piecewise", "learning-rate schedule", choices="training.schedule:SCHEDULES",
        phrase="{} schedule instead of {}", word="schedule"),
    Key("schedule.milestones", (32_000, 48_000), "steps at which the learning rate is multiplied by schedule.factor",
        when="schedule.name!=cosine|constant", derived=True, phrase="learning rate lowered at steps {} instead of {}"),
    Key("schedule.factor", 0.1, "factor of the learning rate at each milestone", when="schedule.name!=cosine|constant",
        phrase="learning rate multiplied by {} at each milestone instead of {}", word="factor of the rate"),
    Key("schedule.warmup_steps", 0, "number of warm-up steps at the start", least=0, derived=True,
        phrase="{} steps of warm-up instead of {}"),
    Key("schedule.warmup", "constant",
        "constant: warm-up at schedule.warmup_learning_rate; linear: learning rate rising to the schedule's own",
        choices=("constant", "linear"), when="schedule.warmup_steps", phrase="{} warm-up instead of {}"),
    Key("schedule.warmup_learning_rate", 0.01, "learning rate during a constant warm-up",
        when="schedule.warmup_steps and schedule.warmup=constant",
        phrase="warm-up at a learning rate of {} instead of {}"),
    Key("schedule.decay_steps", 0, "step at which the schedule ends, such as the cosine at 0; 0: train.steps", least=0,
        when="schedule.name!=piecewise|constant", derived=True, phrase="half a cosine over {} steps"),

    Key("train.steps", 64_000, "number of training steps", least=1, resume="may grow", derived=True,
        phrase="{} steps instead of {}", word="training steps"),
    Key("train.batch_size", 128, "training images in a batch, over all devices", least=1,
        phrase="batches of {} images instead of {}"),
    Key("train.bn_group", 0, "number of images that BN normalises together; 0: the global batch", least=0,
        when="model.norm=batch", derived=True, phrase="batch normalisation over {} images instead of {}",
        word="images BN normalises together"),
    Key("train.accumulate", 1,
        "number of parts a device's batch is split into; gradients accumulate over them, to save memory", least=1,
        **_NOT_PROTOCOL, word="parts of a batch"),
    Key("train.label_smoothing", 0.0, "share of each target that is spread evenly over all classes", least=0, below=1,
        phrase="label smoothing {} instead of {}"),
    Key("train.metrics", "",
        "metrics besides loss and error: names from training/metric_functions.py, separated by commas", **_MAY_CHANGE),
    Key("train.log_every", 100, "number of steps between two records of training metrics", least=1, derived=True,
        **_NOT_PROTOCOL),
    Key("train.eval_every", 1_000, "number of steps between evaluations", least=1, derived=True, **_NOT_PROTOCOL),
    Key("train.eval_batch_size", 500, "images in a batch of evaluation, over all devices", least=1, **_NOT_PROTOCOL),
    Key("train.eval_train", False, "also evaluate on the training images, without augmentation", **_NOT_PROTOCOL),
    Key("train.checkpoint_every", 1_000, "number of steps between checkpoints", least=1, derived=True, **_NOT_PROTOCOL),
    Key("train.keep_checkpoints", 2, "number of newest checkpoints to keep", least=1, **_MAY_CHANGE),
)
# fmt: on

KEYS: dict[str, Key] = {key.name: key for key in _ROWS}

# Keys that do not affect results, so they may change on resume.
RESUME_MAY_CHANGE = tuple(key.name for key in _ROWS if key.resume == "may change")

# Keys that a file in configs/ derives from others. Runs that recorded no rules stored these keys with values that did
# not follow other keys.
DERIVED = frozenset(key.name for key in _ROWS if key.derived)


def base() -> ConfigDict:
    """Returns a config with every key, set to the paper's CIFAR-10 recipe (arXiv:1512.03385, section 4.2)."""
    values: dict[str, Any] = {}
    for key in _ROWS:
        section, _, name = key.name.rpartition(".")
        at = values.setdefault(section, {}) if section else values
        at[name] = config_dict.placeholder(float) if key.default is None else key.default
    return ConfigDict(values)


def in_memory(data: Mapping[str, Any]) -> bool:
    """Tells whether the section ``data`` of a config keeps the whole data set in memory instead of streaming it."""
    return data["pipeline"] == "resident"


def flatten(c: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns a config, or the dict from its JSON, by dotted key: ``{"model.depth": 20, ...}``; lists become tuples."""
    flat: dict[str, Any] = {}
    for key, value in c.items():
        if isinstance(value, Mapping | ConfigDict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = tuple(value) if isinstance(value, list) else value
    return flat
