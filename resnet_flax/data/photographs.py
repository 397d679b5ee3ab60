"""Photographs that stay where they lie, compressed, and are opened one by one: as files, in tars, in TFDS records."""

import dataclasses
import functools
import io
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

# Bytes; by default it is the file system's block, which may be many times an image.
BUFFER = 2**16


class Source(Protocol):
    """Compressed images, known by number. It is sent to worker processes, so it holds no open file."""

    def open(self, number: int) -> BinaryIO:
        """The image's bytes, as a file."""

    def name(self, number: int) -> str:
        """The name in messages: where a user would look for the image."""

    def identity(self) -> bytes:
        """Digest of what it holds, in which order, wherever that lies."""


@dataclasses.dataclass(frozen=True)
class Files:
    """Image files in a folder.

    Attributes:
      folder: that holds them all.
      names: [N] relative to it, bytes.
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
    """Files inside a tar that is not compressed, read in place.

    Attributes:
      tar: the outermost one.
      names: [N] of the members, bytes.
      offsets: [N] of their first bytes in ``tar``.
      sizes: [N] bytes.
    """

    tar: Path
    names: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray

    def open(self, number: int) -> BinaryIO:
        """See :class:`Source`."""
        # Opened anew each time: a file that several threads shared would have one position for all of them.
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
    """The images of a split of a prepared TFDS data set whose files are ``array_record``.

    Attributes:
      folder: of the prepared data set.
      split: its name.
    """

    folder: Path
    split: str

    def open(self, number: int) -> BinaryIO:
        """See :class:`Source`."""
        return io.BytesIO(self.read()[number]["image"])

    def read(self) -> Sequence[dict]:
        """The examples, opened once in each process.

        The first time on the main thread, before others need it: TFDS is kept from printing, and so would they be.
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


@functools.cache  # one for each process: it holds open files
def _records(folder: str, split: str) -> Sequence[dict]:
    from resnet_flax.data.tfds_sets import encoded  # in worker processes, which may not need it

    return encoded(Path(folder), split)


@dataclasses.dataclass(frozen=True)
class Photo:
    """One of a source's images; ``str`` of it is what messages call it."""

    source: Source
    number: int

    def open(self, mode: str = "rb") -> BinaryIO:
        """Its bytes, as a file; as ``Path.open`` does."""
        return self.source.open(self.number)

    def __str__(self) -> str:
        return self.source.name(self.number)


@dataclasses.dataclass(frozen=True)
class Bytes:
    """The bytes of an image file that has no place of its own, to be read as a :class:`Photo` is."""

    content: bytes

    def open(self, mode: str = "rb") -> BinaryIO:
        """See :class:`Photo`."""
        return io.BytesIO(self.content)

    def __str__(self) -> str:
        return "an image"


@dataclasses.dataclass(frozen=True)
class Photographs:
    """Photographs and their classes; a sequence of :class:`Photo`.

    Attributes:
      source: where they lie.
      numbers: [N] int64, in the source.
      labels: [N] int32.
    """

    source: Source
    numbers: np.ndarray
    labels: np.ndarray

    @staticmethod
    def all_of(source: Source, labels: np.ndarray) -> "Photographs":
        """Every image of a source."""
        return Photographs(source, np.arange(len(labels)), np.asarray(labels, np.int32))

    def take(self, indices: np.ndarray) -> "Photographs":
        """Returns the photographs at the given places, in their order."""
        return Photographs(self.source, self.numbers[indices], self.labels[indices])

    def name(self, place: int) -> str:
        """Returns what messages call the photograph at a place: where it lies."""
        return str(self[place])

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: int) -> Photo:
        return Photo(self.source, int(self.numbers[place]))
