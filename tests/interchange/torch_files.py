"""Writes PyTorch's file formats without PyTorch, and provides malicious pickle programs to put into them."""

import io
import pickle
import struct
import zipfile

import numpy as np

from tests.data.imagenet_files import tar_of

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class Global:
    """A name to write into the file; nothing is imported."""

    def __init__(self, name):
        self.module, _, self.name = name.rpartition(".")


class Call:
    """A call ``function(*arguments)`` to write into the file, optionally followed by a state."""

    def __init__(self, function, *arguments, state=None):
        self.function, self.arguments, self.state = Global(function), arguments, state


class Raw:
    """Pickle instructions to write unchanged."""

    def __init__(self, content):
        self.content = content


class Pickler(pickle._Pickler):
    def __init__(self, file, persistent):
        super().__init__(file, protocol=2)
        self.persistent = persistent

    def persistent_id(self, value):
        return self.persistent(value)

    def save(self, value, save_persistent_id=True):
        if isinstance(value, Raw):
            self.write(value.content)
        elif isinstance(value, Global):
            self.write(f"c{value.module}\n{value.name}\n".encode())
        elif isinstance(value, Call):
            self.save(value.function)
            self.save(value.arguments)
            self.write(b"R")
            if value.state is not None:
                self.save(value.state)
                self.write(b"b")
        else:
            super().save(value, save_persistent_id)


class Storage:
    def __init__(self, key, array):
        self.key, self.array = str(key), array


def dumps(value, persistent=lambda _: None):
    file = io.BytesIO()
    Pickler(file, persistent).dump(value)
    return file.getvalue()


def stride_of(array):
    return tuple(s // array.itemsize for s in np.ascontiguousarray(array).strides)


def with_tensors(value, storages):
    """Replaces each array by the call that rebuilds it, and appends its storage to a list."""
    if isinstance(value, np.ndarray):
        storages.append(Storage(len(storages), np.ascontiguousarray(value)))
        return Call(
            "torch._utils._rebuild_tensor_v2", storages[-1], 0, value.shape, stride_of(value), False,
            Call("collections.OrderedDict"),
        )  # fmt: skip
    if isinstance(value, dict):
        return {key: with_tensors(item, storages) for key, item in value.items()}
    return value


def _persistent(value):
    if isinstance(value, Storage):
        return ("storage", Global("torch.FloatStorage"), value.key, "cpu", value.array.size)
    return None


def zip_file(value, extra=(), compression=zipfile.ZIP_STORED):
    """Formats an object as PyTorch 1.6 and later write it."""
    storages, file = [], io.BytesIO()
    content = dumps(with_tensors(value, storages), _persistent)
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", "little")
        for storage in storages:
            archive.writestr(f"archive/data/{storage.key}", storage.array.tobytes())
        for name, data in extra:
            archive.writestr(name, data)
    return file.getvalue()


def legacy_file(value):
    """Formats an object as PyTorch 0.2 to 1.5 wrote it."""
    storages = []
    content = dumps(with_tensors(value, storages), _persistent)
    head = b"".join(pickle.dumps(v, 2) for v in (MAGIC, PROTOCOL, {"little_endian": True}))
    keys = pickle.dumps([s.key for s in storages], 2)
    return head + content + keys + b"".join(struct.pack("<q", s.array.size) + s.array.tobytes() for s in storages)


def tar_file(value, late=False):
    """Formats an object as PyTorch 0.1 wrote it: parameters that refer to tensors in other files of the tar.

    Args:
      late: Whether parameters get their tensor with their state, as in the first releases.
    """
    arrays = {}

    def parameters(item):
        if isinstance(item, np.ndarray):
            arrays[str(1000 + len(arrays))] = np.ascontiguousarray(item)
            key = Tensor(next(reversed(arrays)))
            if late:
                return Call("torch.nn.parameter.Parameter", state=(key, None, Call("collections.OrderedDict"), True, 0))
            return Call("torch.nn.parameter.Parameter", key, state=(True, False, Call("collections.OrderedDict")))
        return {k: parameters(v) for k, v in item.items()} if isinstance(item, dict) else item

    content = dumps(parameters(value), lambda v: v.key if isinstance(v, Tensor) else None)
    storages, tensors = dumps(len(arrays)), dumps(len(arrays))
    for key, array in arrays.items():
        storages += dumps((int(key) + 10**6, "cpu", Global("torch.FloatStorage")))
        storages += struct.pack("<q", array.size) + array.tobytes()
        tensors += dumps((int(key), int(key) + 10**6, Global("torch.FloatTensor")))
        tensors += struct.pack("<ii", array.ndim, 0)
        tensors += struct.pack(f"<{2 * array.ndim + 1}q", *array.shape, *stride_of(array), 0)
    storages += dumps([])
    return tar_of([("sys_info", dumps({})), ("pickle", content), ("tensors", tensors), ("storages", storages)])


class Tensor:
    def __init__(self, key):
        self.key = key


def harmful(path):
    """Pickle programs that create a folder if Python's interpreter runs them, by the instruction that does it."""
    name, text = str(path).encode(), b"X" + struct.pack("<I", len(str(path))) + str(path).encode()
    return {
        "REDUCE": b"cos\nmkdir\n" + text + b"\x85R",
        "INST": b"(S'" + name + b"'\nios\nmkdir\n",
        "OBJ": b"(cos\nmkdir\n" + text + b"o",
        "NEWOBJ_EX": b"cos\nmkdir\n" + text + b"\x85}\x92",
        "STACK_GLOBAL": b"\x8c\x02os\x8c\x05mkdir\x93" + text + b"\x85R",
        "BUILD": b"ccollections\nOrderedDict\n}X\x09\x00\x00\x00__class__cos\nmkdir\nsb",
        "EXT": b"\x82\x01" + text + b"\x85R",
        "persistent id": b"cos\nmkdir\n" + text + b"\x85RQ",
    }
