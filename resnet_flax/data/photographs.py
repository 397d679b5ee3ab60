"""Photographs on disk, opened one by one where they are stored: in files, in tar files or in TFDS records."""

import dataclasses
import functools
import io
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

BUFFER = 2**16  # bytes; the default is the file system's block size, which may be many times an image


class Source(Protocol):
    """Protocol of a store of compressed images, numbered from 0. It is sent to workers, so it holds no open files."""

    def open(self, number: int) -> BinaryIO:
        """Opens the bytes of an image as a file."""

    def name(self, number: int) -> str:
        """Returns the name of an image in messages, by which a user finds it on disk."""

    def identity(self) -> bytes:
        """Returns bytes that identify the images and their order, but not the folder that they are in."""


@dataclasses.dataclass(frozen=True)
class Files:
    """Image files in a folder.

    Attributes:
      folder: The folder that holds all of them.
      names: [N], the paths of the files relative to ``folder``, as bytes.
    """

    folder: Path
    names: np.ndarray

    def open(self, number: int) -> BinaryIO:
        """See :class:`Source`."""
        return open(self.name(number), "rb")

    def name(self, number: int) -> str:
        """See :class:`Source`."""
        return f"{self.folder}/{os.fsdecode(self.names[number])}"

    def identity(self) -> bytes:
        """See :class:`Source`."""
        return b"files" + self.names.tobytes()


@dataclasses.dataclass(frozen=True)
class TarMembers:
    """Files inside an uncompressed tar file, read in place.

    Attributes:
      tar: The outermost tar file.
      names: [N], the names of the members, as bytes.
      offsets: [N], the positions of their first bytes in ``tar``.
      sizes: [N], their sizes in bytes.
    """

    tar: Path
    names: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray

    def open(self, number: int) -> BinaryIO:
        """See :class:`Source`."""
        # Opened again each time, because threads that share a file would share its position.
        with open(self.tar, "rb", buffering=BUFFER) as file:
            file.seek(int(self.offsets[number]))
            return io.BytesIO(file.read(int(self.sizes[number])))

    def name(self, number: int) -> str:
        """See :class:`Source`."""
        return f"{self.tar}: {self.names[number].decode(errors='replace')}"

    def identity(self) -> bytes:
        """See :class:`Source`."""
        return b"tar" + self.names.tobytes()


@dataclasses.dataclass(frozen=True)
class Records:
    """Images of a split of a prepared TFDS data set in the format ``array_record``.

    Attributes:
      folder: The folder of the prepared data set.
      split: The name of the split.
    """

    folder: Path
    split: str

    def open(self, number: int) -> BinaryIO:
        """See :class:`Source`."""
        return io.BytesIO(self.read()[number]["image"])

    def read(self) -> Sequence[dict]:
        """Returns the examples; they are opened once in each process.

        The first call should be on the main thread, before others start: it redirects stdout to silence TFDS, which
        would silence other threads too.
        """
        with _opening:
            return _records(str(self.folder), self.split)

    def name(self, number: int) -> str:
        """See :class:`Source`."""
        return f"{self.folder}: image {number} of {self.split}"

    def identity(self) -> bytes:
        """See :class:`Source`."""
        return f"{self.folder.parent.name} {self.folder.name} {self.split}".encode()


_opening = threading.Lock()


@functools.cache  # in each process, because the result holds open files
def _records(folder: str, split: str) -> Sequence[dict]:
    from resnet_flax.data.tfds_sets import encoded  # imported late, as worker processes may not need it

    return encoded(Path(folder), split)


@dataclasses.dataclass(frozen=True)
class Photo:
    """One image of a source. Its ``str`` is its name in messages."""

    source: Source
    number: int

    def open(self, mode: str = "rb") -> BinaryIO:
        """Opens the image's bytes as a file, like ``Path.open``."""
        return self.source.open(self.number)

    def __str__(self) -> str:
        return self.source.name(self.number)


@dataclasses.dataclass(frozen=True)
class Bytes:
    """The bytes of an image file in memory, which can be read like a :class:`Photo`."""

    content: bytes

    def open(self, mode: str = "rb") -> BinaryIO:
        """See :class:`Photo`."""
        return io.BytesIO(self.content)

    def __str__(self) -> str:
        return "an image"


@dataclasses.dataclass(frozen=True)
class Photographs:
    """Photographs and their labels; a sequence of :class:`Photo`.

    Attributes:
      source: The source that holds the images.
      numbers: [N] int64, the numbers of the images in the source.
      labels: [N] int32, their labels.
    """

    source: Source
    numbers: np.ndarray
    labels: np.ndarray

    @staticmethod
    def all_of(source: Source, labels: np.ndarray) -> "Photographs":
        """Returns all images of a source, with these labels."""
        return Photographs(source, np.arange(len(labels)), np.asarray(labels, np.int32))

    def take(self, indices: np.ndarray) -> "Photographs":
        """Returns the photographs at the given indices, in the order of the indices."""
        return Photographs(self.source, self.numbers[indices], self.labels[indices])

    def name(self, place: int) -> str:
        """Returns the name of a photograph in messages: its place on disk."""
        return str(self[place])

    def identity(self) -> bytes:
        """Returns bytes that identify the photographs and their order, but not the folder that they are in."""
        return self.source.identity() + self.numbers.tobytes()

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: int) -> Photo:
        return Photo(self.source, int(self.numbers[place]))
