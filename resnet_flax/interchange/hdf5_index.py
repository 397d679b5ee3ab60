"""Program that finds the tensors' offsets in a Keras HDF5 file; ``hdf5.py`` runs it as a subprocess.

A damaged file can send the HDF5 library into an endless loop, so the operating system limits this program's CPU time.
An HDF5 file can also refer to other files' bytes as a tensor (external storage, external links, virtual data sets), so
only links inside the file are followed. The program imports nothing of the project, so that it starts in 0.2 s.
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
_LARGEST_COMPACT = 2**16  # bytes; HDF5 stores such a data set in the object header

# Keras 3 numbers a layer's variables. The count tells their names: a convolution or dense layer, or a BN.
_VARIABLES = {
    1: ("kernel",),
    2: ("kernel", "bias"),
    4: ("gamma", "beta", "moving_mean", "moving_variance"),
}


class _Refused(Exception):
    """The file is refused; the message says why."""


def index(path: str, start: int, size: int) -> dict[str, Any]:
    """Finds the tensors of an HDF5 file that occupies the bytes ``[start, start + size)`` of another file.

    Returns:
      A dict with one of three keys. ``tensors`` maps a name such as ``conv1_conv/kernel`` to the tensor's ``dtype``,
      ``shape`` and ``offset`` from ``start``. If HDF5 stores the tensor in its object header, ``bytes`` in base64
      replaces the offset. If the tensor cannot be read, there is only ``why``, the reason. ``refused`` is the reason
      why the file is not read. ``damaged`` is the library's error.
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
    storage = dataset.id.get_create_plist()
    if storage.get_external_count() or dataset.is_virtual:
        raise _Refused(f"{dataset.name} is kept in another file, which is not read")
    place = {"dtype": dataset.dtype.str, "shape": dataset.shape}
    if storage.get_layout() == h5py.h5d.COMPACT and dataset.nbytes < _LARGEST_COMPACT:
        return place | {"bytes": base64.b64encode(dataset[()].tobytes()).decode()}
    offset = dataset.id.get_offset()
    if storage.get_layout() != h5py.h5d.CONTIGUOUS:
        return {"why": "compressed, or in chunks; save it as Keras does"}
    if offset is None or offset + dataset.nbytes > size:
        return {"why": f"of shape {dataset.shape}, for which the file is too short"}
    return place | {"offset": offset}


def _datasets(file: "h5py.File") -> Iterator[tuple[str, Any]]:
    top = _inside(file, "model_weights") if "model_weights" in file else file
    if "layer_names" in top.attrs:
        return _keras_2(top)
    if "layers" in top or "_layer_checkpoint_dependencies" in top:
        return _keras_3(top, set())
    raise _Refused("an HDF5 file, but not of Keras's weights: it has neither layer_names nor layers")


def _inside(group: "h5py.Group", name: str) -> Any:
    """Returns a group or data set inside a group, and refuses links to other files or places."""
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


def _keras_2(top: "h5py.Group") -> Iterator[tuple[str, Any]]:
    """Yields the tensors of a file that Keras 1 or 2 wrote."""
    for layer in map(_text, _attribute(top.attrs, "layer_names")):
        group = _inside(top, layer)
        given = [_text(name) for name in _attribute(group.attrs, "weight_names")]
        # A nested model is one layer here, and its tensors' names begin with the names of its own layers.
        layers = {name.split("/")[-2] for name in given if "/" in name}
        for name in given:
            mine = name.split("/")[-2] if len(layers) > 1 and "/" in name else layer
            yield f"{mine}/{name.rpartition('/')[2].partition(':')[0]}", _inside(group, name)


def _keras_3(group: "h5py.Group", seen: set[Any]) -> Iterator[tuple[str, Any]]:
    """Yields the tensors of a layer and of the layers inside it, in a file that Keras 3 wrote."""
    where = h5py.h5o.get_info(group.id)
    if (where.fileno, where.addr) in seen:
        return  # links may form a cycle
    seen.add((where.fileno, where.addr))
    for inner in ("layers", "_layer_checkpoint_dependencies"):
        if inner in group.keys():  # noqa: SIM118 (`in group` follows links)
            layers = _inside(group, inner)
            for name in layers.keys():  # noqa: SIM118
                yield from _keras_3(_inside(layers, name), seen)
    if "vars" not in group.keys():  # noqa: SIM118
        return
    variables = _inside(group, "vars")
    if not len(variables):  # an activation's group is empty; h5py's groups are always true
        return
    if "name" not in variables.attrs or len(variables) not in _VARIABLES:
        raise _Refused(
            f"{group.name} has no name that identifies the layer; load the file with a newer Keras and save it again"
        )
    for i, name in enumerate(_VARIABLES[len(variables)]):
        yield f"{_text(_attribute(variables.attrs, 'name'))}/{name}", _inside(variables, str(i))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


if __name__ == "__main__":
    seconds, start, size = map(int, sys.argv[2:])
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    json.dump(index(sys.argv[1], start, size), sys.stdout)
