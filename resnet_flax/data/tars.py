"""Indices of tar files, with which images are read without unpacking."""

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from resnet_flax.data.cache import cached_array
from resnet_flax.data.photographs import BUFFER, TarMembers
from resnet_flax.errors import UserError
from resnet_flax.runtime.progress import Progress

_END = 1024  # zero bytes at the end of a complete tar file


def members(tar: Path) -> TarMembers:
    """Lists the files in a tar file and in the tar files inside it, in their order.

    A member of an inner tar file is named ``inner.tar/member``. Only the headers are read, which takes a few minutes
    for ImageNet's 138 GiB. The index is then cached (:func:`.cache.cached_array`).

    Raises:
      UserError: The file is not a complete tar file; the message names it.
    """
    index = cached_array(f"index-{tar.name}", [tar], lambda: _read(tar, tar.stat().st_size))
    return TarMembers(tar, index["name"], index["offset"], index["size"])


def _read(tar: Path, size: int) -> np.ndarray:
    found = []
    with (
        open(tar, "rb", buffering=BUFFER) as file,
        Progress(size, f"reading {tar.name}", "bytes") as progress,
    ):
        done = 0
        for name, offset, length in _files(file, 0, size, str(tar)):
            found.append((name.encode(errors="surrogateescape"), offset, length))
            progress.update(offset + length - done)
            done = offset + length
    if not found:
        raise UserError(f"{tar}: this tar file holds no files")
    longest = max(len(name) for name, _, _ in found)
    return np.array(found, [("name", f"S{longest}"), ("offset", np.int64), ("size", np.int64)])


def _files(file: BinaryIO, start: int, size: int, name: str) -> Iterator[tuple[str, int, int]]:
    """Yields (name, offset in ``file``, size in bytes) for the files in the tar of ``size`` bytes at ``start``."""

    def broken(why: object) -> UserError:
        return UserError(f"{name}: not a complete tar file ({why}); was it copied completely?")

    inside = _Part(file, start, size)
    end = 0
    try:
        with tarfile.open(fileobj=inside, mode="r:") as archive:
            for member in archive:
                offset, end = start + member.offset_data, member.offset_data + member.size
                if end > size:
                    raise broken(f"{member.name} ends {end - size} bytes after the end of the tar file")
                if member.isfile() and member.name.endswith(".tar"):
                    for inner, place, length in _files(file, offset, member.size, f"{name}: {member.name}"):
                        yield f"{member.name}/{inner}", place, length
                elif member.isfile():
                    yield member.name, offset, member.size
                archive.members = []  # type: ignore[attr-defined]  # tarfile would keep a million of them in memory
    except (tarfile.TarError, EOFError) as error:
        raise broken(error) from None
    # tarfile does not notice a copy that ends between two members, but such a copy lacks the zeros at the end.
    inside.seek(max(end, size - _END))
    if size - end < _END or inside.read(_END).strip(b"\0"):
        raise broken("its end mark is missing")


class _Part(io.RawIOBase):
    """File-like view of the bytes ``start`` to ``start + size`` of a file."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size, self._place = file, start, size, 0

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        """See :class:`io.IOBase`."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = base + place
        return self._place

    def tell(self) -> int:
        """See :class:`io.IOBase`."""
        return self._place

    def read(self, count: int = -1) -> bytes:
        """See :class:`io.RawIOBase`."""
        left = max(0, self._size - self._place)
        self._file.seek(self._start + self._place)
        found = self._file.read(left if count < 0 else min(count, left))
        self._place += len(found)
        return found

    def seekable(self) -> bool:
        """Always true."""
        return True
