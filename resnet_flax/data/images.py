"""Images and labels of a split in memory; splits that are held out, checks of labels, and central crops."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from resnet_flax.data.photographs import Photographs
from resnet_flax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Images:
    """Images and their labels, in memory or memory-mapped from the cache.

    Attributes:
      images: [N, H, W, C] uint8.
      labels: [N] int32.
      photographs: The photographs in class folders that the images were decoded from; None for other data sets.
    """

    images: np.ndarray
    labels: np.ndarray
    photographs: Photographs | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "Images":
        """Returns the images at the given indices, in the order of the indices."""
        photographs = None if self.photographs is None else self.photographs.take(indices)
        return Images(self.images[indices], self.labels[indices], photographs)

    def name(self, place: int) -> str:
        """Returns the name of an image in messages: its index, counted from 0."""
        return str(place)

    def identity(self) -> bytes:
        """Returns bytes that identify the images and their order: those of the photographs, or a hash of pixels."""
        if self.photographs is not None:
            return self.photographs.identity()
        # The central row of each image: all pixels of CIFAR-10 would take a tenth of a second at each start.
        return hashlib.sha256(self.images[:, self.images.shape[1] // 2].tobytes()).digest()


S = TypeVar("S", Images, Photographs)


class Found(NamedTuple):
    """Images and classes that the loader of a data set returns.

    Attributes:
      train: The training split, :class:`Images` or :class:`Photographs`.
      test: The test split; None if the data have none: a fifth of each class is then set aside.
      classes: The names of the classes, by label.
      where: A description of the data and their place, for messages.
      note: A note for the user, such as on which images the network is tested if the split ``test`` has no labels.
      own_split: Whether the data have a test split of their own; otherwise a fifth of the images was set aside.
      from_folders: Whether the classes are folders, whose order is that of their names.
      skipped: The part of ``note`` on files that were skipped.
      source: The file or folder that was read, for messages; empty if ``where`` tells it.
    """

    train: Any
    test: Any
    classes: Sequence[str]
    where: str
    note: str = ""
    own_split: bool = True
    from_folders: bool = False
    skipped: str = ""
    source: str = ""


def split_off_validation(train: S, count: int) -> tuple[S, S]:
    """Holds ``count`` training images out, the same ones in every run; returns the rest and the held-out images.

    For CIFAR-10 and 5000 this is like the 45k/5k split of the paper (section 4.2), which does not publish the images
    that it held out.
    """
    if count == 0:
        return train, train.take(np.arange(0))
    # RandomState is frozen by NumPy: the same permutation in every version.
    order = np.random.RandomState(0).permutation(len(train))
    return train.take(np.sort(order[count:])), train.take(np.sort(order[:count]))


def subset(train: S, count: int) -> S:
    """Returns ``count`` of the images, in their order, the same in every run; larger subsets contain smaller ones."""
    order = np.random.RandomState(0).permutation(len(train))
    return train.take(np.sort(order[:count]))


def fifth(count: int) -> np.ndarray:
    """Returns about a fifth of the indices in [0, count), at least one, always the same, in random order."""
    # RandomState is frozen by NumPy: the same permutation in every version.
    return np.random.RandomState(0).permutation(count)[: max(1, round(count / 5))]


def set_aside_fifth(train: S) -> tuple[S, S]:
    """Sets a fifth of each class's images aside for testing, the same ones in every run; returns train and test.

    A class with a single image keeps it for training.
    """
    test = np.zeros(len(train), bool)
    for label in np.unique(train.labels):
        places = np.flatnonzero(train.labels == label)
        if len(places) > 1:
            test[places[fifth(len(places))]] = True
    return train.take(np.flatnonzero(~test)), train.take(np.flatnonzero(test))


def check_labels(where: str, split: str, labels: np.ndarray, classes: int) -> None:
    """Refuses labels that are not the index of a class.

    Raises:
      UserError: The message names the first image with a wrong label.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(f"{where}: labels of {split} must be integers [N]; they are {labels.dtype} {labels.shape}")
    strange = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(strange):
        raise UserError(
            f"{where}: image {strange[0]} of {split} has the label {labels[strange[0]]}; there are {classes} classes, "
            f"so labels must be from 0 to {classes - 1}"
        )


def center_offset(length: int, side: int) -> int:
    """Returns the first pixel of a central crop of ``side`` pixels, rounded like torchvision's ``CenterCrop``."""
    return round((length - side) / 2)


def center(images: Any, height: int, width: int) -> Any:
    """Returns the central crops [..., height, width, C] of NumPy or JAX images [..., H, W, C].

    The place of the crop is that of torchvision's ``CenterCrop``.

    Raises:
      ValueError: The crop is larger than the images.
    """
    there = images.shape[-3:-1]
    if height > there[0] or width > there[1]:
        raise ValueError(f"a crop of {height}x{width} is larger than the images of {there[0]}x{there[1]} pixels")
    top, left = center_offset(there[0], height), center_offset(there[1], width)
    return images[..., top : top + height, left : left + width, :]
