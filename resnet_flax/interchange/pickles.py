"""Reads what ``torch.save`` wrote, zip or legacy format, without PyTorch and without running code from the file.

A pickle is a program: it can name any function and call it. Here the only ones it can name are those that put tensors
together, and they are our own; a file that names another is refused.
"""

import collections
import dataclasses
import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from resnet_flax.errors import UserError

_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001

_DTYPES = {
    "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "BFloat16Storage": "<u2",
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "i1", "ByteStorage": "u1",
    "BoolStorage": "?",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _StorageType:
    name: str


@dataclasses.dataclass
class _Storage:
    """Numbers in a row; in a legacy file they come after all that refers to them."""

    type: _StorageType
    key: str
    count: int
    data: np.ndarray | None = None

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(_DTYPES[self.type.name])

    def fill(self, raw: bytes) -> None:
        if len(raw) != self.count * self.dtype.itemsize:
            raise ValueError(f"storage {self.key} ends early")
        self.data = np.frombuffer(raw, self.dtype)
        if self.type.name == "BFloat16Storage":  # the upper half of a float32
            self.data = (self.data.astype(np.uint32) << 16).view(np.float32)


@dataclasses.dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def array(self) -> np.ndarray:
        """A copy, of the tensor's own shape."""
        data = self.storage.data
        if len(self.size) != len(self.stride) or min((self.offset, *self.size, *self.stride), default=0) < 0:
            raise ValueError(f"a tensor of shape {self.size} with strides {self.stride}")
        last = self.offset + sum((n - 1) * s for n, s in zip(self.size, self.stride, strict=True))
        if 0 in self.size:
            return np.zeros(self.size, data.dtype)
        if last >= len(data):
            raise ValueError(f"a tensor of shape {self.size} reaches beyond its storage of {len(data)}")
        strides = [s * data.itemsize for s in self.stride]
        return np.lib.stride_tricks.as_strided(data[self.offset :], self.size, strides, writeable=False).copy()


def _rebuild_tensor(storage: _Storage, offset: int, size: Any, stride: Any, *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor without a storage")
    return _Tensor(storage, int(offset), tuple(map(int, size)), tuple(map(int, stride)))


def _rebuild_parameter(data: _Tensor, *_: Any) -> _Tensor:
    return data


# All that a file may name.
_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): _StorageType(name) for name in _DTYPES},
}


class _RefusedError(Exception):
    """The file names something that no file of weights needs."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")  # Python 2 wrote some of these files
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise _RefusedError(f"{module}.{name}")
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _, count, *view = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType) or (view and view[0] is not None):
            raise ValueError("a storage of an unknown kind")
        return self.storages.setdefault(str(key), _Storage(storage_type, str(key), int(count)))


def read(path: Path) -> Any:
    """The object in the file, its tensors as NumPy arrays (bfloat16 as float32).

    Raises:
      UserError: it cannot be read, is no such file, is damaged, or names what it must not: nothing of it was run.
    """
    try:
        with open(path, "rb") as file:
            loaded = _read_zip(file) if zipfile.is_zipfile(file) else _read_legacy(file)
        return _arrays(loaded)
    except _RefusedError as refused:
        raise UserError(
            f"{path}: refused as a malicious pickle: it asks for {refused}, which no file of weights needs; nothing of "
            f"it was run"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # whatever bytes that are no pickle, or half of one, make of the unpickler
        raise UserError(
            f"{path}: not a file that torch.save wrote, or a damaged one: {type(error).__name__}: {error}"
        ) from None


def _read_zip(file: BinaryIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        (main,) = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        root = main.rpartition("/")[0]
        unpickler = _Unpickler(io.BytesIO(archive.read(main)))
        loaded = unpickler.load()
        for storage in unpickler.storages.values():
            storage.fill(archive.read(f"{root}/data/{storage.key}"))
    return loaded


def _read_legacy(file: BinaryIO) -> Any:
    file.seek(0)
    magic, protocol, _ = (_Unpickler(file).load() for _ in range(3))
    if (magic, protocol) != (_LEGACY_MAGIC, _LEGACY_PROTOCOL):
        raise ValueError("its first bytes are others")
    unpickler = _Unpickler(file)
    loaded = unpickler.load()
    for key in _Unpickler(file).load():
        storage = unpickler.storages[str(key)]
        (count,) = struct.unpack("<q", file.read(8))
        if count != storage.count:
            raise ValueError(f"storage {key} holds {count} numbers instead of {storage.count}")
        storage.fill(file.read(count * storage.dtype.itemsize))
    return loaded


def _arrays(loaded: Any) -> Any:
    """Tensors become arrays, in dicts and lists of any depth."""
    if isinstance(loaded, _Tensor):
        return loaded.array()
    if isinstance(loaded, dict):
        return {key: _arrays(value) for key, value in loaded.items()}
    if isinstance(loaded, list | tuple):
        return [_arrays(value) for value in loaded]
    return loaded
