"""What a data set is here: images and labels of each split, in memory or mapped from the cache."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Images:
    """Images [N, H, W, C] uint8 and their classes [N] int32."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "Images":
        """Those at the given places, in their order."""
        return Images(self.images[indices], self.labels[indices])


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The splits of a data set, and the names of its classes.

    ``validation`` is empty unless ``data.validation`` sets training images aside.
    """

    train: Images
    test: Images
    validation: Images
    classes: tuple[str, ...]


def split_off_validation(train: Images, count: int) -> tuple[Images, Images]:
    """Sets ``count`` images aside, the same ones in every run: (the rest, in its order; those set aside).

    For CIFAR-10 and 5000 this is a split in the manner of the paper's 45k/5k (section 4.2); which images the
    paper set aside is not published.
    """
    if count == 0:
        return train, train.take(np.arange(0))
    # RandomState is frozen by NumPy: the same permutation in every version.
    order = np.random.RandomState(0).permutation(len(train))
    return train.take(np.sort(order[count:])), train.take(np.sort(order[:count]))


def subset(train: Images, count: int) -> Images:
    """That many of the images, in their order, the same ones in every run; smaller ones lie in larger ones."""
    order = np.random.RandomState(0).permutation(len(train))
    return train.take(np.sort(order[:count]))
