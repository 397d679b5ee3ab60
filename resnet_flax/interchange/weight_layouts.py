"""How others name and lay out the tensors of these networks: a table each.

To add one: write its table and put it into :data:`LAYOUTS`. What a table has no name for keeps ours.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

_IGNORED = ("num_batches_tracked", "n_averaged")  # ends of PyTorch's names that carry no weights
_MOST_PREFIXES = 8  # that names may have, one after the other
_BN_LEAVES = ("scale", "bias", "mean", "var")


@dataclasses.dataclass(frozen=True)
class WeightLayout:
    """Names and axes of one source of weights, and how its networks were trained.

    Attributes:
      name: of the source.
      families: whose networks it has (``model.family``).
      outside: our layers outside of stages, and its names for them.
      inside: our layers inside a unit, and its names for them.
      unit: name of a layer of a unit, of ``{stage}``, ``{unit}`` and ``{layer}``.
      first_stage, first_unit: where its counting starts.
      separator: between a layer and its tensor.
      leaves: our tensors of convolutions and dense layers, and its names.
      bn_leaves: of BN's ``scale``, ``bias``, ``mean`` and ``var``, its names.
      kernel_axes: of a convolution's kernel, as places in ours (HWIO).
      dense_transposed: whether dense kernels are [out, in].
      marks: parts of names by which a file of this source is known.
      prefix: that its names may have, beside what all names of a file have in common.
      ignored: ends of names that carry no weights.
      aliases: layers that some of its files name otherwise: their other name, and the one here.
      absorbed: our BNs, and the convolutions before them whose biases it has and we do not: a bias before a BN is
        the same as a mean that is smaller by as much.
      bgr: whether the stem reads blue, green, red.
      settings: config keys in which its networks differ from ours.
      views: config keys that say how its images were brought to size.
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
        """Its name for one of our tensors.

        Args:
          modules: ours, such as ``("stage1", "rest", "conv1")``.
          leaf: ``kernel``, ``bias``, ``scale``, ``mean`` or ``var``.
          index: of the unit among a stage's ``rest``.
        """
        leaves = self.bn_leaves if is_norm(modules[-1]) else self.leaves
        return self.separator.join([self.layer(modules, index), leaves[leaf]])

    def by_name(self, tensors: Mapping[str, Any], common: str) -> dict[str, Any]:
        """A file's tensors by the names that this table has for them; without those that carry no weights.

        Args:
          common: what all names of the file begin with (:func:`common_prefix`).
        """
        found = {}
        for name, tensor in tensors.items():
            layer, separator, leaf = name.removeprefix(common).removeprefix(self.prefix).rpartition(self.separator)
            if not name.endswith(self.ignored):
                found[self.aliases.get(layer, layer) + separator + leaf] = tensor
        return found

    def layer(self, modules: tuple[str, ...], index: int | None) -> str:
        """Its name for one of our layers."""
        if not modules[0].startswith("stage"):
            return ".".join([self.outside.get(modules[0], modules[0]), *modules[1:]])
        stage = int(modules[0].removeprefix("stage")) - 1 + self.first_stage
        unit = (0 if index is None else 1 + index) + self.first_unit
        layer = ".".join([self.inside.get(modules[2], modules[2]), *modules[3:]])
        return self.unit.format(stage=stage, unit=unit, layer=layer)

    def to_theirs(self, value: np.ndarray, modules: tuple[str, ...]) -> np.ndarray:
        """A tensor of ours in its axes."""
        if value.ndim == 4:
            value = value[:, :, ::-1] if self._reverses(value, modules) else value
            return value.transpose(self.kernel_axes)
        return value.T if value.ndim == 2 and self.dense_transposed else value

    def to_ours(self, value: np.ndarray, modules: tuple[str, ...]) -> np.ndarray:
        """A tensor of its in our axes."""
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
    # github.com/akamaster/pytorch_resnet_cifar10: option A with channels padded on both sides.
    "akamaster": WeightLayout(
        name="akamaster's",
        families=("cifar", "vgg", "highway"),
        outside={"stem_conv": "conv1", "stem_bn": "bn1", "dense": "linear"},
        inside={"shortcut_conv": "shortcut.0", "shortcut_bn": "shortcut.1"},
        marks=("linear.weight", ".shortcut.0."),
        settings={"model.shortcut_padding": "both", "model.bn_epsilon": 1e-5, "data.normalization": "imagenet"},
        **_PYTORCH,
    ),
    # timm's ResNet-18 to 152 have the same names. Strides on the 3x3 ("v1.5"), projections where the shape changes.
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
    # transformers' ResNetForImageClassification (microsoft/resnet-18 to 152): torchvision's networks, other names.
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
    # keras.applications.ResNet50, 101, 152: strides on the first 1x1, biases, Caffe's images, BN's epsilon 1.001e-5.
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
        aliases={"probs": "predictions", "fc1000": "predictions"},  # of keras-applications, whose files are published
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
    """The layout in which networks of a family are written."""
    return next(layout for layout in LAYOUTS.values() if family in layout.families)


def of_names(names: Collection[str], family: str) -> WeightLayout:
    """The layout of a file, by the names in it; where they do not tell, that of the family."""
    for layout in LAYOUTS.values():
        if any(mark in name for mark in layout.marks for name in names):
            return layout
    return of_family(family)


def common_prefix(names: Iterable[str]) -> str:
    """Finds what all names of a PyTorch file begin with, such as ``module._orig_mod.``: modules around the network."""
    weights = [name for name in names if not name.endswith(_IGNORED)]
    found = ""
    for _ in range(_MOST_PREFIXES if weights else 0):
        first = weights[0][len(found) :].partition(".")[0] + "."
        # Of a layer's tensors alone, its own name is no prefix.
        if not all(name.startswith(found + first) and "." in name[len(found + first) :] for name in weights):
            break
        found += first
    return found


def is_norm(layer: str) -> bool:
    """Whether one of our layers is a BN (or the bias in its place), by its name."""
    return layer.rstrip("0123456789").endswith("bn")
