"""Images and labels of a split, in memory or mapped from the cache; splits that are set aside, and central crops."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from resnet_flax.data.photographs import Photographs
from resnet_flax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Images:
    """Images [N, H, W, C] uint8 and their classes [N] int32."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "Images":
        """Returns the images at the given places, in their order."""
        return Images(self.images[indices], self.labels[indices])

    def name(self, place: int) -> str:
        """Returns what messages call the image at a place: its number, counted from 0."""
        return str(place)


Split = Images | Photographs
S = TypeVar("S", Images, Photographs)


class Found(NamedTuple):
    """Images and classes that the loader of a data set returns.

    Attributes:
      test: None where the data have no split for testing: a fifth of each class is then set aside.
      where: what was found and where, for people.
      note: says which images stand in for the split ``test`` where the data set has none with labels, and the like.
      own_split: whether the data themselves say which images are for testing; else a fifth of them was set aside.
    """

    train: Any
    test: Any
    classes: Sequence[str]
    where: str
    note: str = ""
    own_split: bool = True


def split_off_validation(train: S, count: int) -> tuple[S, S]:
    """Sets ``count`` images aside, the same ones in every run: (the rest, in its order; those set aside).

    For CIFAR-10 and 5000 this is a split in the manner of the paper's 45k/5k (section 4.2); which images the
    paper set aside is not published.
    """
    if count == 0:
        return train, train.take(np.arange(0))
    # RandomState is frozen by NumPy: the same permutation in every version.
    order = np.random.RandomState(0).permutation(len(train))
    return train.take(np.sort(order[count:])), train.take(np.sort(order[:count]))


def subset(train: S, count: int) -> S:
    """That many of the images, in their order, the same ones in every run; smaller ones lie in larger ones."""
    order = np.random.RandomState(0).permutation(len(train))
    return train.take(np.sort(order[:count]))


def fifth(count: int) -> np.ndarray:
    """About a fifth of the places in [0, count), at least one, always the same, in no order."""
    # RandomState is frozen by NumPy: the same permutation in every version.
    return np.random.RandomState(0).permutation(count)[: max(1, round(count / 5))]


def set_aside_fifth(train: S) -> tuple[S, S]:
    """Sets a fifth of each class's images aside for testing, the same ones in every run: (the rest, those set aside).

    A class of one image keeps it for training.
    """
    test = np.zeros(len(train), bool)
    for label in np.unique(train.labels):
        places = np.flatnonzero(train.labels == label)
        if len(places) > 1:
            test[places[fifth(len(places))]] = True
    return train.take(np.flatnonzero(~test)), train.take(np.flatnonzero(test))


def check_labels(where: str, split: str, labels: np.ndarray, classes: int) -> None:
    """Refuses labels that name no class.

    Raises:
      UserError: it names the first image with one.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(f"{where}: labels of {split} must be whole numbers [N]; they are {labels.dtype} {labels.shape}")
    strange = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(strange):
        raise UserError(
            f"{where}: image {strange[0]} of {split} has the label {labels[strange[0]]}; there are {classes} classes, "
            f"so labels must be from 0 to {classes - 1}"
        )


def center_offset(length: int, side: int) -> int:
    """The place where a central crop of ``side`` pixels begins, by the rounding of torchvision's ``CenterCrop``."""
    return round((length - side) / 2)


def center(images: Any, side: int) -> Any:
    """The central crop of arrays of NumPy or JAX, where torchvision takes it; a side of 0 leaves the images whole.

    [N, H, W, C] -> [N, side, side, C].
    """
    height, width = images.shape[1:3]
    if side in (0, height) and side in (0, width):
        return images
    if side > min(height, width):
        raise ValueError(f"a crop of {side} is larger than the images, {height}x{width}")
    top, left = center_offset(height, side), center_offset(width, side)
    return images[:, top : top + side, left : left + side]
