"""Reads files of ``torch.save`` (zip, legacy, and PyTorch 0.1's tar) without PyTorch and without running their code.

A restricted interpreter (``machine.py``) runs the pickles in a file. It has only the few functions that create tensors.
Tensors are views of the file, which take no memory until they are copied.
"""

import dataclasses
import struct
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from resnet_flax.errors import UserError
from resnet_flax.interchange.machine import Deferred, KnownFunction, Machine, Part, Unknown, brief, dict_of

KERAS_MEMBER = "model.weights.h5"  # identifies a .keras file, which is also a zip
LEGACY_HEAD = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # first bytes of a legacy file
_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_TAR_MEMBERS = ("storages", "tensors", "pickle")

_MOST_MEMBERS = 2**16  # limit on the files in a tar
_MOST_DIMENSIONS = 32

_DTYPES = {
    name: np.dtype(kind) for name, kind in {
        "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "BFloat16Storage": ml_dtypes.bfloat16,
        "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "i1", "ByteStorage": "u1",
        "BoolStorage": "?", "ComplexFloatStorage": "<c8", "ComplexDoubleStorage": "<c16", "QInt8Storage": "i1",
        "QUInt8Storage": "u1", "QInt32Storage": "<i4",
    }.items()
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Storage:
    """A one-dimensional array of numbers, which tensors are views of."""

    key: str
    kind: str
    count: int

    @property
    def size(self) -> int:
        return self.count * _DTYPES[self.kind].itemsize


@dataclasses.dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Any:
    if not isinstance(storage, _Storage):
        return storage if isinstance(storage, Unknown) else Unknown("a tensor without a storage")
    size, stride = _size(size), _size(stride)
    if len(size) != len(stride) or not all(type(n) is int and 0 <= n < 2**62 for n in (offset, *size, *stride)):
        return Unknown(f"a tensor of shape {size[:8]} with strides {stride[:8]}")
    return _Tensor(storage, offset, size, stride)


def _size(given: Any = ()) -> tuple:
    if not isinstance(given, list | tuple) or len(given) > _MOST_DIMENSIONS:
        raise ValueError("a shape is no tuple")
    return tuple(given)


# The only functions that a file may call.
_KNOWN: dict[str, Any] = {
    known.name: known for known in (
        KnownFunction("collections.OrderedDict", dict_of),
        KnownFunction("torch.Size", _size),
        KnownFunction("torch._utils._rebuild_tensor", _rebuild_tensor),
        KnownFunction("torch._utils._rebuild_tensor_v2", _rebuild_tensor),
        KnownFunction("torch._utils._rebuild_parameter", lambda data, *_: data),
        KnownFunction("torch._utils._rebuild_parameter_with_state", lambda data, *_: data),
        KnownFunction("torch.nn.parameter.Parameter", lambda data=None, *_: Deferred(data)),
        KnownFunction("torch.autograd.variable.Variable", lambda data=None, *_: Deferred(data)),
    )
}  # fmt: skip


@dataclasses.dataclass
class _Loaded:
    """An unpickled object whose tensors are not yet arrays.

    Attributes:
      value: The object.
      containers: Every dict and list in it.
      places: The offset of each storage's numbers in the file, by the storage's key.
    """

    value: Any
    containers: list[dict | list]
    places: dict[str, int]


def read(path: Path) -> Any:
    """Reads the object in a file: dicts and lists that hold arrays, simple values and :class:`Unknown` placeholders.

    Arrays are views of the file, which is mapped into memory.

    Raises:
      UserError: The file cannot be read, has another format, or is damaged.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(4)
            if head == b"PK\x03\x04":
                loaded = _read_zip(file)
            elif is_tar(file):
                loaded = _read_tar(file)
            else:
                loaded = _read_legacy(file)
        return _with_arrays(loaded, np.asarray(np.memmap(path, np.uint8, mode="r")))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # a damaged pickle can make the interpreter raise anything
        why = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: not a file that torch.save wrote, or a damaged one: {type(error).__name__}: {why}"
        ) from None


def is_tar(file: BinaryIO) -> bool:
    """Tells whether a file is a tar."""
    file.seek(257)
    return file.read(5) == b"ustar"


def stored_member(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Returns the offset of the bytes of a zip's member in the file.

    Raises:
      ValueError: The member is compressed, or is not at the offset in the zip's directory.
    """
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.compress_size != info.file_size:
        raise ValueError(f"{info.filename} in it is compressed, which takes an unknown amount of memory; unpack it")
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise ValueError(f"{info.filename} is not where its directory says")
    start = info.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
    if start + info.file_size > file.seek(0, 2):
        raise ValueError(f"{info.filename} ends early")
    return start


def _unpickle(part: Part) -> Any:
    return Machine(part, _KNOWN, _storage).run()


def _read_zip(file: BinaryIO) -> _Loaded:
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
    mains = [name for name in members if name.rpartition("/")[2] == "data.pkl"]
    if len(mains) != 1:
        raise ValueError(f"a zip of {', '.join(list(members)[:3]) or 'nothing'}; unpack it, and name the file inside")
    root = mains[0].removesuffix("data.pkl")
    if order := members.get(f"{root}byteorder"):
        file.seek(stored_member(file, order))
        if file.read(3) == b"big":
            raise ValueError("its numbers are big-endian; save it on another machine")
    places: dict[str, int] = {}

    def persistent(pid: Any) -> Any:
        storage = _storage(pid)
        info = members.get(f"{root}data/{storage.key}") if isinstance(storage, _Storage) else None
        if info is None:
            return storage if isinstance(storage, Unknown) else Unknown(f"a storage that is missing: {storage.key}")
        if info.file_size != storage.size:
            return Unknown(f"a storage of {storage.size} bytes of which the file has {info.file_size}")
        if storage.key not in places:
            try:
                places[storage.key] = stored_member(file, info)
            except ValueError as error:
                return Unknown(f"a storage that cannot be read: {error}")
        return storage

    info = members[mains[0]]
    machine = Machine(Part(file, stored_member(file, info), info.file_size), _KNOWN, persistent)
    return _Loaded(machine.run(), machine.containers, places)


def _read_legacy(file: BinaryIO) -> _Loaded:
    part = Part(file, 0, file.seek(0, 2))
    magic, protocol, _ = (_unpickle(part) for _ in range(3))
    if (magic, protocol) != (_LEGACY_MAGIC, _LEGACY_PROTOCOL):
        raise ValueError("its first bytes are not those of a PyTorch file")
    storages: dict[str, _Storage] = {}

    def persistent(pid: Any) -> Any:
        storage = _storage(pid)
        return storages.setdefault(storage.key, storage) if isinstance(storage, _Storage) else storage

    machine = Machine(part, _KNOWN, persistent)
    value, places = machine.run(), {}
    for key in _unpickle(part):
        storage = storages[str(key)]
        (count,) = struct.unpack("<q", part.exactly(8))
        if count != storage.count:
            raise ValueError(f"storage {key} holds {count} numbers instead of {storage.count}")
        places[storage.key] = part.skip(storage.size)
    return _Loaded(value, machine.containers, places)


def _read_tar(file: BinaryIO) -> _Loaded:
    """Reads a tar of PyTorch 0.1: a file of storages, a file of tensors that refer to them, and the pickled object."""
    file.seek(0)
    parts = {}
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for count, member in enumerate(archive):
            if member.isreg() and not member.issparse():
                parts[member.name] = (member.offset_data, member.size)
            if count >= _MOST_MEMBERS:
                raise ValueError("it has too many files")
    if not all(name in parts for name in _TAR_MEMBERS):
        raise ValueError(f"a tar of {', '.join(list(parts)[:3]) or 'nothing'}; unpack it, and name the file inside")
    storages, tensors, main = (Part(file, *parts[name]) for name in _TAR_MEMBERS)

    known: dict[str, Any] = {}
    places: dict[str, int] = {}
    for _ in range(_count(_unpickle(storages))):
        key, _, kind = _unpickle(storages)
        (count,) = struct.unpack("<q", storages.exactly(8))
        storage = known[str(key)] = _storage(("storage", kind, key, "cpu", count))
        places[storage.key] = storages.skip(storage.size)
    for key, root, offset, count in _unpickle(storages):
        whole = known[str(root)]
        known[str(key)] = storage = _storage(("storage", Unknown(f"torch.{whole.kind}"), key, "cpu", count))
        place = offset * _DTYPES[whole.kind].itemsize
        if not 0 <= place <= whole.size - storage.size:
            raise ValueError(f"storage {key} reaches beyond storage {root}, of which it is a part")
        places[storage.key] = places[whole.key] + place

    for _ in range(_count(_unpickle(tensors))):
        key, storage, _ = _unpickle(tensors)
        (dimensions,) = struct.unpack("<i", tensors.exactly(8)[:4])
        if not 0 <= dimensions <= _MOST_DIMENSIONS:
            raise ValueError(f"a tensor of {dimensions} dimensions")
        numbers = struct.unpack(f"<{2 * dimensions + 1}q", tensors.exactly(8 * (2 * dimensions + 1)))
        size, stride = numbers[:dimensions], numbers[dimensions:-1]
        known[str(key)] = _rebuild_tensor(known[str(storage)], numbers[-1], size, stride)

    def persistent(pid: Any) -> Any:
        return pid[0] if isinstance(pid, tuple) and pid else known.get(str(pid), Unknown("a tensor that is missing"))

    machine = Machine(main, _KNOWN, persistent)
    return _Loaded(machine.run(), machine.containers, places)


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("a count is not a number")
    return value


def _storage(pid: Any) -> Any:
    """Returns the object for a persistent id: a storage, or a class, which old files keep with its source code."""
    if isinstance(pid, tuple) and pid[:1] == ("module",) and len(pid) > 1:
        return pid[1]
    if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
        return Unknown("a persistent id")
    _, kind, key, _, count, *view = pid
    what = kind.what if isinstance(kind, Unknown) else brief(kind)
    name = what.removeprefix("torch.").removeprefix("cuda.")
    if name not in _DTYPES or (view and view[0] is not None):
        return Unknown(f"a storage of an unknown kind, {what}")
    if type(count) is not int or not 0 <= count < 2**58 or not isinstance(key, str | int):
        return Unknown("a storage of an impossible size")
    return _Storage(str(key), name, count)


def _with_arrays(loaded: _Loaded, raw: np.ndarray) -> Any:
    """Returns the object with its tensors replaced by arrays."""

    def final(value: Any) -> Any:
        value = value.data if isinstance(value, Deferred) else value
        return _array(value, loaded.places, raw) if isinstance(value, _Tensor) else value

    for container in loaded.containers:
        pairs: Iterable = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in list(pairs):
            if isinstance(value, _Tensor | Deferred):
                container[key] = final(value)
    return final(loaded.value)


def _array(tensor: _Tensor, places: dict[str, int], raw: np.ndarray) -> np.ndarray | Unknown:
    """Returns a tensor as a view of the file's bytes, or an Unknown if it reaches beyond its storage."""
    storage, size, strides = tensor.storage, tensor.size, tensor.stride
    dtype, start = _DTYPES[storage.kind], places[storage.key]
    what = f"a tensor of shape {size[:8]} with strides {strides[:8]}"
    try:
        if 0 in size:
            return np.broadcast_to(np.zeros((), dtype), size)
        if tensor.offset + sum((n - 1) * s for n, s in zip(size, strides, strict=True)) >= storage.count:
            return Unknown(f"{what}, which reaches beyond its storage of {storage.count}")
        data = raw[start : start + storage.size].view(dtype)[tensor.offset :]
        return np.lib.stride_tricks.as_strided(data, size, [s * dtype.itemsize for s in strides], writeable=False)
    except (ValueError, OverflowError):
        return Unknown(what)
