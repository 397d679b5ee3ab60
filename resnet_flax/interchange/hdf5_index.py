"""A program that tells where the tensors of Keras's HDF5 files lie; ``hdf5.py`` starts it, in a process of its own.

The library that reads HDF5 can be sent into an endless loop by a damaged file. Here the system stops it after a time.
HDF5 can also put other files' bytes in the place of a tensor (external storage, external links, virtual data sets). So
only links inside the file are followed. The program imports nothing of the project and starts in a fifth of a second.
"""

import base64
import io
import json
import math
import resource
import sys
from collections.abc import Iterator
from typing import Any

import h5py

_MOST_ATTRIBUTE = 2**24  # bytes
_LARGEST_COMPACT = 2**16  # bytes; HDF5 keeps such a data set among its own notes

# What Keras 3 calls 0, 1, ... of a layer, by how many there are: a convolution or dense layer, or a BN.
_VARIABLES = {
    1: ("kernel",),
    2: ("kernel", "bias"),
    4: ("gamma", "beta", "moving_mean", "moving_variance"),
}


class _Refused(Exception):
    """Raised for a file that is not read; the message says why."""


def index(path: str, start: int, size: int) -> dict[str, Any]:
    """Finds the tensors in an HDF5 file that is the bytes ``[start, start + size)`` of a file.

    Returns:
      ``tensors``: by name such as ``conv1_conv/kernel`` either ``why`` it is not read, or its ``dtype``, ``shape`` and
      ``offset`` from ``start`` or, where HDF5 keeps it among its notes, ``bytes`` in base64. Or ``refused``: why the
      file is not read. Or ``damaged``: what the library says.
    """
    try:
        source: Any = path
        if start:
            with open(path, "rb") as outer:
                outer.seek(start)
                source = io.BytesIO(outer.read(size))
        with h5py.File(source, "r") as file:
            tensors: dict[str, Any] = {}
            for name, dataset in _datasets(file):
                if name in tensors:
                    raise _Refused(f"two tensors in it have the name {name}")
                tensors[name] = _place(dataset, size)
            return {"tensors": tensors}
    except _Refused as error:
        return {"refused": str(error)}
    except (OSError, KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        text = str(error.args[0] if error.args else error).splitlines()
        return {"damaged": text[0] if text else str(error)}


def _place(dataset: Any, size: int) -> dict[str, Any]:
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiu":
        return {"why": "no array of numbers"}
    how = dataset.id.get_create_plist()
    if how.get_external_count() or dataset.is_virtual:
        raise _Refused(f"{dataset.name} is kept in another file, which is not read")
    place = {"dtype": dataset.dtype.str, "shape": dataset.shape}
    if how.get_layout() == h5py.h5d.COMPACT and dataset.nbytes < _LARGEST_COMPACT:
        return place | {"bytes": base64.b64encode(dataset[()].tobytes()).decode()}
    offset = dataset.id.get_offset()
    if how.get_layout() != h5py.h5d.CONTIGUOUS:
        return {"why": "compressed, or in chunks; save it as Keras does"}
    if offset is None or offset + dataset.nbytes > size:
        return {"why": f"of shape {dataset.shape}, and the file has not so many numbers"}
    return place | {"offset": offset}


def _datasets(file: "h5py.File") -> Iterator[tuple[str, Any]]:
    top = _inside(file, "model_weights") if "model_weights" in file else file
    if "layer_names" in top.attrs:
        return _old(top)
    if "layers" in top or "_layer_checkpoint_dependencies" in top:
        return _keras_3(top, set())
    raise _Refused("an HDF5 file, but not of Keras's weights: it has neither layer_names nor layers")


def _inside(group: "h5py.Group", name: str) -> Any:
    """A group or data set below a group; links to other places are not followed."""
    for part in name.split("/"):
        if part and not isinstance(group.get(part, getlink=True), h5py.HardLink):
            if part not in group.keys():  # noqa: SIM118 (`in group` follows links)
                raise KeyError(f"it holds no {name}")
            raise _Refused(f"{group.name.rstrip('/')}/{part} is a link to another place, which is not followed")
        group = group[part] if part else group
    return group


def _attribute(attributes: "h5py.AttributeManager", name: str) -> Any:
    described = attributes.get_id(name)
    if math.prod(described.shape) * described.dtype.itemsize > _MOST_ATTRIBUTE:
        raise ValueError(f"{name} is too long")
    return attributes[name]


def _old(top: "h5py.Group") -> Iterator[tuple[str, Any]]:
    for layer in map(_text, _attribute(top.attrs, "layer_names")):
        group = _inside(top, layer)
        given = [_text(name) for name in _attribute(group.attrs, "weight_names")]
        # A model inside the model is a layer there, and its tensors' names begin with those of its own layers.
        layers = {name.split("/")[-2] for name in given if "/" in name}
        for name in given:
            mine = name.split("/")[-2] if len(layers) > 1 and "/" in name else layer
            yield f"{mine}/{name.rpartition('/')[2].partition(':')[0]}", _inside(group, name)


def _keras_3(group: "h5py.Group", seen: set[Any]) -> Iterator[tuple[str, Any]]:
    """The tensors of a layer, and of the layers inside it."""
    where = h5py.h5o.get_info(group.id)
    if (where.fileno, where.addr) in seen:
        return  # a loop
    seen.add((where.fileno, where.addr))
    for inner in ("layers", "_layer_checkpoint_dependencies"):
        if inner in group.keys():  # noqa: SIM118 (`in group` follows links)
            layers = _inside(group, inner)
            for name in layers.keys():  # noqa: SIM118
                yield from _keras_3(_inside(layers, name), seen)
    if "vars" not in group.keys():  # noqa: SIM118
        return
    variables = _inside(group, "vars")
    if not len(variables):  # a group is true even where it is empty, as an activation's is
        return
    if "name" not in variables.attrs or len(variables) not in _VARIABLES:
        raise _Refused(
            f"{group.name} has no name that tells which layer it is; load it with a newer Keras and save it again"
        )
    for i, name in enumerate(_VARIABLES[len(variables)]):
        yield f"{_text(_attribute(variables.attrs, 'name'))}/{name}", _inside(variables, str(i))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


if __name__ == "__main__":
    seconds, start, size = map(int, sys.argv[2:])
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    json.dump(index(sys.argv[1], start, size), sys.stdout)
