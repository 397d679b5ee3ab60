"""The registry of data sets, with their loaders, image shapes and classes; and :func:`load`.

A new data set is one row, in this file or in a file of your own that runs first, such as your config file:

    @register("blobs", side=8, channels=1, classes=2)
    def blobs(data):
        return Found(Images(pixels, labels), None, ("round", "square"), where="blobs")
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, NoReturn

import numpy as np

from resnet_flax.data import loaders, photograph_sets, tfds_sets
from resnet_flax.data.folders import scan
from resnet_flax.data.images import Found, Images, S, check_labels, set_aside_fifth, split_off_validation, subset
from resnet_flax.data.photograph_sets import IMAGENET
from resnet_flax.errors import UserError
from resnet_flax.paths import expanded
from resnet_flax.registry import DATA_NAME, Registry

if TYPE_CHECKING:  # the module imports jax
    from resnet_flax.data.access import Access

Loader = Callable[..., Found]


def _no_photographs(data: Mapping[str, Any], testing: bool) -> NoReturn:
    raise UserError(
        f"data.name={data['name']!r} has no photographs for data.pipeline='stream'; set data.folder to theirs"
    )


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A row of the registry.

    Attributes:
      side: The side of the images, which are squares, in pixels; None if their sizes differ: ``data.image_size`` then
        sets it.
      channels: The number of channels; None if it is known only after reading.
      classes: The number of classes; None if it is known only after reading.
      images: A function ``data -> Found`` that reads all images into memory; ``data`` is the section of a config.
      photographs: A function ``(data, testing) -> Found`` that finds photographs that stay on disk; with ``testing``,
        a test split is enough.
      title: The data set's name in texts; by default its name in the registry.
      config: The path of the config file for this data set; "" if there is none.
    """

    side: int | None
    channels: int | None
    classes: int | None
    images: Loader
    photographs: Loader = _no_photographs
    title: str = ""
    config: str = ""


DATASETS: Registry[DataSet] = Registry("data set", names=DATA_NAME)


def register(
    name: str, side: int | None = None, channels: int | None = None, classes: int | None = None
) -> Callable[[Loader], Loader]:
    """Registers a data set; the decorated function reads its images into memory. See :class:`DataSet`."""

    def add(images: Loader) -> Loader:
        DATASETS[name] = DataSet(side, channels, classes, images)
        return images

    return add


def _photographs_by_name(data: Mapping[str, Any], testing: bool) -> Found:
    return photograph_sets.find(data["name"], loaders.data_dir(data["data_dir"]), testing)


def _photographs_in_folder(data: Mapping[str, Any], testing: bool) -> Found:
    if not data["folder"]:
        _no_photographs(data, testing)
    return photograph_sets.of_folder(expanded(data["folder"]), data["class_order"], testing)


_PREPARED = DataSet(None, None, None, loaders.named, _photographs_by_name)  # for every name that is not in the registry
DATASETS |= {
    "digits": DataSet(8, 1, 10, loaders.digits, config="configs/digits.py"),
    "cifar10": DataSet(32, 3, 10, loaders.named, _photographs_by_name, "CIFAR-10", "configs/cifar10.py"),
    "cifar100": DataSet(32, 3, 100, loaders.named, _photographs_by_name, "CIFAR-100", "configs/cifar100.py"),
    IMAGENET: DataSet(None, 3, 1000, loaders.named, _photographs_by_name, "ImageNet", "configs/imagenet.py"),
    "folder": DataSet(None, 3, None, loaders.folder, _photographs_in_folder, config="configs/folder.py"),
}
DATASETS.reserve()


def row(name: str) -> DataSet:
    """Returns the row of a data set; a name that is not registered has the row of prepared TFDS data sets."""
    return DATASETS.get(name, _PREPARED)


@dataclasses.dataclass(frozen=True)
class Data(Generic[S]):
    """A loaded data set: its splits, its classes and the access to its images. Labels and shapes are checked.

    Attributes:
      train: The training split.
      test: The test split.
      validation: The validation split; empty unless ``data.validation`` is set.
      classes: The names of the classes, by label.
      where, note, own_split, from_folders, skipped, source: See :class:`~resnet_flax.data.images.Found`.
      access: The access to the images in memory or on disk (:mod:`.access`).
    """

    train: S
    test: S
    validation: S
    classes: tuple[str, ...]
    where: str
    note: str
    own_split: bool
    access: "Access[S]"
    from_folders: bool = False
    skipped: str = ""
    source: str = ""

    @property
    def splits(self) -> dict[str, S]:
        """The splits by name; ``validation`` only if it is not empty."""
        splits = {"train": self.train, "test": self.test}
        return splits | ({"validation": self.validation} if len(self.validation) else {})

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that identify the images and their order, in any folder.

        For photographs in class folders they are the same on disk and decoded into memory. Those of other images differ
        between the two, and between sizes: only fingerprints of one ``access.form`` can be compared.
        """
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        for split in (self.train, self.validation, self.test):
            digest.update(split.identity())
            digest.update(split.labels.tobytes())
        return digest.hexdigest()[:16]


def load(data: Mapping[str, Any], testing: bool = False, pipeline: str | None = None) -> Data:
    """Loads the data set that the section ``data`` of a config names, and checks its labels and shapes.

    Args:
      data: The section ``data`` of a config.
      testing: Whether a test split is enough if photographs on disk have no training split, and ``data.validation`` or
        ``data.subset`` may be larger than the training split.
      pipeline: A value to use instead of ``data.pipeline``.

    Raises:
      UserError: The data set was not found (the message lists the places), or its labels, shapes or files are wrong.
    """
    from resnet_flax.data.access import ACCESS  # imports jax, for which configs and reports should not wait

    if data["class_order"] != "names" and not data["folder"]:
        raise UserError(
            f"data.class_order={data['class_order']!r} is only for class folders; set data.folder to theirs"
        )
    known = row("folder" if data["folder"] else data["name"])
    found, access = ACCESS[pipeline or data["pipeline"]].load(known, data, testing)
    for split, images in (("train", found.train), ("test", found.test)):
        if images is not None:
            check_labels(found.where, split, images.labels, len(found.classes))
    if found.test is None:
        train, test = set_aside_fifth(found.train)
        found = found._replace(train=train, test=test, own_split=False, note=found.note or tfds_sets.TESTED_ON_A_FIFTH)
    name = data["folder"] or data["name"]
    if not len(found.test) and not testing:
        raise UserError(f"{name}: no image is left for testing: a class with a single image keeps it for training")
    train, validation = _set_aside(found, data, name, testing)
    return Data(
        train, found.test, validation, tuple(found.classes), found.where, found.note, found.own_split, access,
        found.from_folders, found.skipped, found.source,
    )  # fmt: skip


def unread(data: Mapping[str, Any]) -> Data:
    """Describes a data set without reading it: the shape of its images and its number of classes, with empty splits.

    Raises:
      UserError: The shape or the number of classes is known only after reading.
    """
    from resnet_flax.data.access import ACCESS  # imports jax, for which configs and reports should not wait

    shape, count = image_shape(data), classes(data)
    if shape is None or count is None:
        raise UserError(
            f"data.name={data['name']!r}: the shape of its images is not known without reading it; "
            f"choose the config digits, cifar10, cifar100 or imagenet"
        )
    names = tuple(str(number) for number in range(count))
    none = Images(np.empty((0, *shape), np.uint8), np.empty(0, np.int32))
    return Data(none, none, none, names, "", "", True, ACCESS[data["pipeline"]].unread(data, shape))


def load_for_evaluation(data: Mapping[str, Any]) -> Data:
    """Loads images for evaluation or for a check of the files; photographs of ``data.folder`` stay on disk.

    A test split is enough.

    Raises:
      UserError: see :func:`load`.
    """
    return load(data, testing=True, pipeline="stream" if data["folder"] else None)


def image_shape(data: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """Returns (H, W, C) of the network's input for the section ``data``; None if it is known only after reading."""
    known = row(data["name"])
    side = data["image_size"] or known.side
    return (side, side, known.channels) if side and known.channels else None


def classes(data: Mapping[str, Any]) -> int | None:
    """Returns the number of classes of the data set; None if it is known only after reading.

    Raises:
      UserError: The folder ``data.folder`` cannot be read.
    """
    if data["folder"]:
        return len(scan(expanded(data["folder"])).classes)
    return row(data["name"]).classes


def _set_aside(found: Found, data: Mapping[str, Any], name: str, testing: bool) -> tuple[Any, Any]:
    """Applies the settings ``data.validation`` and ``data.subset`` to the training images."""
    train, held_out, wanted = found.train, data["validation"], data["subset"]
    if testing:  # the settings are those of a training run, which may have had more images
        held_out = held_out if held_out < len(train) else 0
        wanted = min(wanted, len(train) - held_out)
    elif held_out >= len(train):
        raise UserError(f"data.validation={held_out} must be below the {len(train)} training images of {name}")
    train, validation = split_off_validation(train, held_out)
    if wanted > len(train):
        raise UserError(f"data.subset={wanted} must be at most the {len(train)} training images of {name}")
    return subset(train, wanted) if wanted else train, validation
