"""The registry of data sets: a name, how it is loaded, its images' shape and its classes; and the load of one.

A new data set is one row, in this file or in one of your own that runs first, such as your config file:

    @register("blobs", side=8, channels=1, classes=2)
    def blobs(data):
        return Found(Images(pixels, labels), None, ("round", "square"), where="blobs")
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, NoReturn

import numpy as np

from resnet_flax.data import imagenet, loaders, tfds_sets
from resnet_flax.data.folders import scan
from resnet_flax.data.images import Found, Images, S, check_labels, set_aside_fifth, split_off_validation, subset
from resnet_flax.errors import UserError
from resnet_flax.paths import expanded

if TYPE_CHECKING:  # it brings jax with it
    from resnet_flax.data.access import Access

Loader = Callable[..., Found]
IMAGENET = "imagenet2012"


def _no_photographs(data: Mapping[str, Any], testing: bool) -> NoReturn:
    raise UserError(f"data.name={data['name']!r}, data.pipeline='stream': name a folder of photographs in data.folder")


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A row of the registry.

    Attributes:
      side: of the images, which are squares, in pixels; None where they differ, and ``data.image_size`` says it.
      channels: of the images; None where only the data tell.
      classes: how many there are; None where only the data tell.
      images: ``data -> Found``, which reads all images into memory; ``data`` is the section of a config.
      photographs: ``(data, testing) -> Found``, which finds photographs that stay on disk; images for testing are
        enough where ``testing`` says so.
      title: what texts call it; by default its name.
      config: the config file that is for it, where there is one.
    """

    side: int | None
    channels: int | None
    classes: int | None
    images: Loader
    photographs: Loader = _no_photographs
    title: str = ""
    config: str = ""


DATASETS: dict[str, DataSet] = {}


def register(
    name: str, side: int | None = None, channels: int | None = None, classes: int | None = None
) -> Callable[[Loader], Loader]:
    """Adds a data set to the registry whose images the decorated function reads into memory; see :class:`DataSet`."""

    def add(images: Loader) -> Loader:
        DATASETS[name] = DataSet(side, channels, classes, images)
        return images

    return add


def _photographs_by_name(data: Mapping[str, Any], testing: bool) -> Found:
    return imagenet.find(data["name"], loaders.data_dir(data["data_dir"]), testing)


def _photographs_in_folder(data: Mapping[str, Any], testing: bool) -> Found:
    if not data["folder"]:
        _no_photographs(data, testing)
    return imagenet.of_folder(expanded(data["folder"]), data["class_order"], testing)


_PREPARED = DataSet(None, None, None, loaders.named, _photographs_by_name)  # any other data set that TFDS prepared
DATASETS |= {
    "digits": DataSet(8, 1, 10, loaders.digits, config="configs/digits.py"),
    "cifar10": DataSet(32, 3, 10, loaders.named, _photographs_by_name, "CIFAR-10", "configs/cifar10.py"),
    "cifar100": DataSet(32, 3, 100, loaders.named, _photographs_by_name, "CIFAR-100", "configs/cifar100.py"),
    IMAGENET: DataSet(None, 3, 1000, loaders.named, _photographs_by_name, "ImageNet", "configs/imagenet.py"),
    "folder": DataSet(None, 3, None, loaders.folder, _photographs_in_folder, config="configs/folder.py"),
}


def row(name: str) -> DataSet:
    """Returns the row of a name; of one that is not in the registry, that of data sets that TFDS has prepared."""
    return DATASETS.get(name, _PREPARED)


@dataclasses.dataclass(frozen=True)
class Data(Generic[S]):
    """A loaded data set: its splits and classes, and how its images are reached. Labels and shapes are checked.

    Attributes:
      validation: empty unless ``data.validation`` sets training images aside.
      where, note, own_split: see :class:`~resnet_flax.data.images.Found`.
      access: how images are reached, in memory or on disk, and become what the network sees.
    """

    train: S
    test: S
    validation: S
    classes: tuple[str, ...]
    where: str
    note: str
    own_split: bool
    access: "Access[S]"

    @property
    def splits(self) -> dict[str, S]:
        """The splits by name; ``validation`` only where it is not empty."""
        splits = {"train": self.train, "test": self.test}
        return splits | ({"validation": self.validation} if len(self.validation) else {})

    def fingerprint(self) -> str | None:
        """Returns 16 hexadecimal digits that are the same wherever the same photographs come in the same order.

        None of images in memory, which are compared by their statistics.
        """
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        for split in (self.train, self.validation, self.test):
            identity = self.access.identity(split)
            if identity is None:
                return None
            digest.update(identity)
            digest.update(split.labels.tobytes())
        return digest.hexdigest()[:16]


def load(data: Mapping[str, Any], testing: bool = False, pipeline: str | None = None) -> Data:
    """Loads the data set that the section ``data`` of a config names, and checks its labels and shapes.

    Args:
      testing: whether photographs for testing are enough, where there are no others.
      pipeline: in place of the config's own.

    Raises:
      UserError: nothing was found, and where it was looked for; or what was found does not fit.
    """
    from resnet_flax.data.access import ACCESS  # with jax, for which configs and reports do not wait

    if data["class_order"] != "names" and not data["folder"]:
        raise UserError(f"data.class_order={data['class_order']!r} is for class folders, which data.folder names")
    known = row("folder" if data["folder"] else data["name"])
    found, access = ACCESS[pipeline or data["pipeline"]].load(known, data, testing)
    for split, images in (("train", found.train), ("test", found.test)):
        if images is not None:
            check_labels(found.where, split, images.labels, len(found.classes))
    if found.test is None:
        train, test = set_aside_fifth(found.train)
        found = found._replace(train=train, test=test, own_split=False, note=found.note or tfds_sets.TESTED_ON_A_FIFTH)
    name = data["folder"] or data["name"]
    train, validation = (found.train, found.train) if testing and not len(found.train) else _aside(found, data, name)
    return Data(
        train, found.test, validation, tuple(found.classes), found.where, found.note, found.own_split, access
    )  # fmt: skip


def unread(data: Mapping[str, Any]) -> Data:
    """Describes a data set without reading it: the shape of its images and how many classes there are, no images.

    Raises:
      UserError: only the data themselves tell.
    """
    from resnet_flax.data.access import ACCESS  # with jax, for which configs and reports do not wait

    shape, count = image_shape(data), classes(data)
    if shape is None or count is None:
        raise UserError(
            f"data.name={data['name']!r}: the shape of its images is not known without reading it; choose a "
            f"config of digits, cifar10, cifar100 or imagenet"
        )
    names = tuple(str(number) for number in range(count))
    none = Images(np.empty((0, *shape), np.uint8), np.empty(0, np.int32))
    return Data(none, none, none, names, "", "", True, ACCESS[data["pipeline"]].unread(data, shape))


def load_for_evaluation(data: Mapping[str, Any]) -> Data:
    """Loads images to evaluate, or to test that they can be read: photographs in a folder stay on disk.

    Images for testing are enough.

    Raises:
      UserError: see :func:`load`.
    """
    return load(data, testing=True, pipeline="stream" if data["folder"] else None)


def load_photographs(data: Mapping[str, Any]) -> Data:
    """Loads the photographs of a data set, on disk, whatever ``data.pipeline`` says.

    Raises:
      UserError: see :func:`load`; or there are none.
    """
    return load(data, pipeline="stream")


def image_shape(data: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """(H, W, C) of what the section ``data`` of a config trains on; None where only the data set itself can tell."""
    known = row(data["name"])
    side = data["image_size"] or known.side
    return (side, side, known.channels) if side and known.channels else None


def classes(data: Mapping[str, Any]) -> int | None:
    """How many classes the data set has; None where only it can tell.

    Raises:
      UserError: it is a folder of photographs (``data.folder``), and that cannot be read.
    """
    if data["folder"]:
        return len(scan(expanded(data["folder"])).classes)
    return row(data["name"]).classes


def _aside(found: Found, data: Mapping[str, Any], name: str) -> tuple[Any, Any]:
    """Applies the settings ``data.validation`` and ``data.subset`` to the training images."""
    train = found.train
    if data["validation"] >= len(train):
        raise UserError(
            f"data.validation={data['validation']} must be below the {len(train)} training images of {name}"
        )
    train, validation = split_off_validation(train, data["validation"])
    wanted = data["subset"]
    if wanted > len(train):
        raise UserError(f"data.subset={wanted} must be at most the {len(train)} training images of {name}")
    return subset(train, wanted) if wanted else train, validation
