"""Names and axes of the tensors in other libraries' files of weights: one table per library.

To support another library, add its table to :data:`LAYOUTS`. Layers and tensors that the table does not list keep our
names.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

_IGNORED = ("num_batches_tracked", "n_averaged")  # suffixes of PyTorch tensors that are not weights
_MOST_PREFIXES = 8  # the most nested modules around a network, such as module._orig_mod.
_BN_LEAVES = ("scale", "bias", "mean", "var")


@dataclasses.dataclass(frozen=True)
class WeightLayout:
    """Names and axes of one library's files of weights, and the config keys in which its networks differ from ours.

    Attributes:
      name: The library, in the possessive, for messages.
      families: The families of networks (``model.family``) that use this layout. ``settings`` apply to the first only.
      outside: Maps our layers outside the stages to the library's names.
      inside: Maps our layers inside a unit to the library's names.
      unit: Template for the name of a layer in a unit, with ``{stage}``, ``{unit}`` and ``{layer}``.
      first_stage, first_unit: The numbers of the first stage and of a stage's first unit.
      separator: The text between the name of a layer and the name of its tensor.
      leaves: Maps our tensors of convolutions and dense layers to the library's names.
      bn_leaves: Maps BN's ``scale``, ``bias``, ``mean`` and ``var`` to the library's names.
      kernel_axes: For each axis of the library's convolution kernels, the axis of ours (HWIO).
      dense_transposed: Whether dense kernels are [out, in].
      marks: Substrings of names that identify a file of this library.
      prefix: A prefix that names may have, in addition to the common prefix of all names in a file.
      ignored: Suffixes of tensors that are not weights.
      aliases: Maps other names of layers, in some of the library's files, to the usual ones.
      absorbed: Maps our BNs to the convolutions before them, if the library's convolutions have biases and ours do
        not. Such a bias is subtracted from the BN's mean, which gives the same output.
      bgr: Whether the first convolution reads blue, green, red.
      settings: The config keys in which the library's networks differ from ours.
      views: The config keys for the size at which the library evaluates images.
    """

    name: str
    families: tuple[str, ...]
    outside: Mapping[str, str]
    inside: Mapping[str, str]
    unit: str
    first_stage: int
    first_unit: int
    separator: str
    leaves: Mapping[str, str]
    bn_leaves: Mapping[str, str]
    kernel_axes: tuple[int, int, int, int]
    dense_transposed: bool
    marks: tuple[str, ...]
    prefix: str = ""
    ignored: tuple[str, ...] = ()
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    absorbed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    bgr: bool = False
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    views: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def tensor(self, modules: tuple[str, ...], leaf: str, index: int | None) -> str:
        """Returns the library's name for one of our tensors.

        Args:
          modules: The path of our layer, such as ``("stage1", "rest", "conv1")``; that of a unit, for a parameter of
            its own.
          leaf: ``kernel``, ``bias``, ``scale``, ``mean`` or ``var``, or a name from a unit of the user's, which stays.
          index: The unit's index in a stage's ``rest``, or None.
        """
        if modules[0].startswith("stage") and len(modules) == 2:
            return self.layer((*modules, leaf), index)
        leaves = self.bn_leaves if is_norm(modules[-1]) else self.leaves
        return self.separator.join([self.layer(modules, index), leaves.get(leaf, leaf)])

    def by_name(self, tensors: Mapping[str, Any], common: str) -> dict[str, Any]:
        """Renames a file's tensors to this table's names, and leaves out those that are not weights.

        Args:
          common: The common prefix of all names in the file (:func:`common_prefix`).
        """
        found = {}
        for name, tensor in tensors.items():
            layer, separator, leaf = name.removeprefix(common).removeprefix(self.prefix).rpartition(self.separator)
            if not name.endswith(self.ignored):
                found[self.aliases.get(layer, layer) + separator + leaf] = tensor
        return found

    def layer(self, modules: tuple[str, ...], index: int | None) -> str:
        """Returns the library's name for one of our layers."""
        if not modules[0].startswith("stage"):
            return ".".join([self.outside.get(modules[0], modules[0]), *modules[1:]])
        stage = int(modules[0].removeprefix("stage")) - 1 + self.first_stage
        unit = (0 if index is None else 1 + index) + self.first_unit
        layer = ".".join([self.inside.get(modules[2], modules[2]), *modules[3:]])
        return self.unit.format(stage=stage, unit=unit, layer=layer)

    def to_theirs(self, value: np.ndarray, modules: tuple[str, ...]) -> np.ndarray:
        """Transposes one of our tensors to the library's axes."""
        if value.ndim == 4:
            value = value[:, :, ::-1] if self._reverses(value, modules) else value
            return value.transpose(self.kernel_axes)
        return value.T if value.ndim == 2 and self.dense_transposed else value

    def to_ours(self, value: np.ndarray, modules: tuple[str, ...]) -> np.ndarray:
        """Transposes one of the library's tensors to our axes."""
        if value.ndim == 4:
            value = value.transpose(np.argsort(self.kernel_axes))
            return value[:, :, ::-1] if self._reverses(value, modules) else value
        return value.T if value.ndim == 2 and self.dense_transposed else value

    def _reverses(self, kernel: np.ndarray, modules: tuple[str, ...]) -> bool:
        return self.bgr and modules == ("stem_conv",) and kernel.shape[2] == 3


_PYTORCH: dict[str, Any] = {
    "unit": "layer{stage}.{unit}.{layer}",
    "first_stage": 1,
    "first_unit": 0,
    "separator": ".",
    "leaves": {"kernel": "weight", "bias": "bias"},
    "bn_leaves": dict(zip(_BN_LEAVES, ("weight", "bias", "running_mean", "running_var"), strict=True)),
    "kernel_axes": (3, 2, 0, 1),
    "dense_transposed": True,
    "ignored": _IGNORED,
}

LAYOUTS: dict[str, WeightLayout] = {
    # github.com/akamaster/pytorch_resnet_cifar10: shortcuts of option A with zero channels on both sides.
    "akamaster": WeightLayout(
        name="akamaster's",
        families=("cifar", "vgg", "highway"),
        outside={"stem_conv": "conv1", "stem_bn": "bn1", "dense": "linear"},
        inside={"shortcut_conv": "shortcut.0", "shortcut_bn": "shortcut.1"},
        marks=("linear.weight", ".shortcut.0."),
        settings={"model.shortcut_padding": "both", "model.bn_epsilon": 1e-5, "data.normalization": "imagenet"},
        **_PYTORCH,
    ),
    # Also timm's ResNet-18 to 152. Strides on the 3x3 ("v1.5"), projections where the shape changes.
    "torchvision": WeightLayout(
        name="torchvision's",
        families=("imagenet",),
        outside={"stem_conv": "conv1", "stem_bn": "bn1", "dense": "fc"},
        inside={"shortcut_conv": "downsample.0", "shortcut_bn": "downsample.1"},
        marks=("fc.weight", ".downsample.0."),
        settings={
            "model.shortcut": "B", "model.bottleneck_stride": "3x3", "model.bn_epsilon": 1e-5,
            "data.normalization": "imagenet",
        },
        views={"data.resize": 256, "data.image_size": 224, "data.interpolation": "bilinear"},
        **_PYTORCH,
    ),
    # transformers' ResNetForImageClassification (microsoft/resnet-18 to 152): torchvision's networks with other names.
    "huggingface": WeightLayout(
        name="Hugging Face's",
        families=("imagenet",),
        outside={
            "stem_conv": "embedder.embedder.convolution", "stem_bn": "embedder.embedder.normalization",
            "dense": "classifier.1",
        },
        inside={
            "shortcut_conv": "shortcut.convolution", "shortcut_bn": "shortcut.normalization",
            **{f"conv{i + 1}": f"layer.{i}.convolution" for i in (0, 1, 2)},
            **{f"bn{i + 1}": f"layer.{i}.normalization" for i in (0, 1, 2)},
        },
        **_PYTORCH | {"unit": "encoder.stages.{stage}.layers.{unit}.{layer}", "first_stage": 0},
        marks=("embedder.embedder.convolution",),
        prefix="resnet.",
        settings={
            "model.shortcut": "B", "model.bottleneck_stride": "3x3", "model.bn_epsilon": 1e-5,
            "data.normalization": "imagenet",
        },
        views={"data.resize": 256, "data.image_size": 224, "data.interpolation": "bicubic"},
    ),
    # keras.applications.ResNet50, 101, 152: strides on the first 1x1, biases, Caffe's preprocessing, epsilon 1.001e-5.
    "keras": WeightLayout(
        name="Keras's",
        families=("imagenet",),
        outside={"stem_conv": "conv1_conv", "stem_bn": "conv1_bn", "dense": "predictions"},
        inside={
            "shortcut_conv": "0_conv", "shortcut_bn": "0_bn",
            **{f"conv{i}": f"{i}_conv" for i in (1, 2, 3)}, **{f"bn{i}": f"{i}_bn" for i in (1, 2, 3)},
        },
        unit="conv{stage}_block{unit}_{layer}",
        first_stage=2,
        first_unit=1,
        separator="/",
        leaves={"kernel": "kernel", "bias": "bias"},
        bn_leaves=dict(zip(_BN_LEAVES, ("gamma", "beta", "moving_mean", "moving_variance"), strict=True)),
        kernel_axes=(0, 1, 2, 3),
        dense_transposed=False,
        marks=("conv1_conv/kernel", "_0_conv/kernel"),
        aliases={"probs": "predictions", "fc1000": "predictions"},  # in the published files of keras-applications
        absorbed={
            "stem_bn": "stem_conv", "shortcut_bn": "shortcut_conv", **{f"bn{i}": f"conv{i}" for i in (1, 2, 3)},
        },
        bgr=True,
        settings={
            "model.shortcut": "B", "model.bottleneck_stride": "first", "model.bn_epsilon": 1.001e-5,
            "data.normalization": "caffe",
        },
        views={"data.resize": 256, "data.image_size": 224, "data.interpolation": "bilinear"},
    ),
}  # fmt: skip


def of_family(family: str) -> WeightLayout:
    """Returns the layout for exporting networks of a family. A user's own family has that of the CIFAR networks."""
    return next((layout for layout in LAYOUTS.values() if family in layout.families), LAYOUTS["akamaster"])


def of_names(names: Collection[str], family: str) -> WeightLayout:
    """Recognises a file's layout by its names; if no name identifies one, returns the family's."""
    for layout in LAYOUTS.values():
        if any(mark in name for mark in layout.marks for name in names):
            return layout
    return of_family(family)


def common_prefix(names: Iterable[str]) -> str:
    """Finds the common prefix of all names in a PyTorch file, such as ``module._orig_mod.``, from wrapping modules."""
    weights = [name for name in names if not name.endswith(_IGNORED)]
    found = ""
    for _ in range(_MOST_PREFIXES if weights else 0):
        first = weights[0][len(found) :].partition(".")[0] + "."
        # If the file holds a single layer, the layer's own name is not a prefix.
        if not all(name.startswith(found + first) and "." in name[len(found + first) :] for name in weights):
            break
        found += first
    return found


def is_norm(layer: str) -> bool:
    """Tells whether one of our layers is a BN, or the bias that replaces it, judging by its name."""
    return layer.rstrip("0123456789").endswith("bn")
