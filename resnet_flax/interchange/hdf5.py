"""Reads the weights that Keras wrote: ``.keras``, ``.weights.h5`` of Keras 3, and the older ``.h5``, without Keras.

HDF5 can put other files' bytes in the place of a tensor (external storage, external links, virtual data sets), and can
claim numbers that it does not hold. So only links inside the file are followed, and tensors are views of the file.
"""

import io
import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from resnet_flax.errors import UserError
from resnet_flax.interchange.machine import Unknown
from resnet_flax.interchange.pickles import KERAS_MEMBER, stored_member

_HEADS = ("predictions", "probs", "fc1000")  # Keras's own names of the last layer; see layouts.py
_MOST_ATTRIBUTE = 2**24  # bytes

# What Keras 3 calls 0, 1, ... of a layer, by how many there are: a convolution or dense layer, or a BN.
_VARIABLES = {
    1: ("kernel",),
    2: ("kernel", "bias"),
    4: ("gamma", "beta", "moving_mean", "moving_variance"),
}

Tensors = dict[str, np.ndarray | Unknown]


def read(path: Path) -> tuple[Tensors, str]:
    """The tensors of a file by names such as ``conv1_conv/kernel``, and what was done to their names, in words.

    Raises:
      UserError: it is no such file, is damaged, keeps no names of layers, or reads other files.
    """
    try:
        raw = np.asarray(np.memmap(path, np.uint8, mode="r"))
        source: Any = path
        if raw[:4].tobytes() == b"PK\x03\x04":
            with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
                info = archive.getinfo(KERAS_MEMBER)
                start = stored_member(file, info)
            raw = raw[start : start + info.file_size]
            source = io.BytesIO(raw.tobytes())
        with h5py.File(source, "r") as file:
            found: Tensors = {}
            for name, dataset in _datasets(file, path):
                if name in found:
                    raise UserError(f"{path}: two tensors in it have the name {name}")
                found[name] = _view(dataset, raw)
            return _with_usual_head(found)
    except UserError:
        raise
    except (OSError, KeyError, RuntimeError, TypeError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        text = str(error.args[0] if error.args else error).splitlines()
        raise UserError(f"{path}: not a readable file of Keras's weights: {text[0] if text else error}") from None


def _view(dataset: Any, raw: np.ndarray) -> np.ndarray | Unknown:
    """A data set's numbers, in place."""
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiu":
        return Unknown("no array of numbers")
    how = dataset.id.get_create_plist()
    if how.get_external_count() or dataset.is_virtual:
        raise UserError(f"{dataset.file.filename}: {dataset.name} is kept in another file, which is not read")
    if how.get_layout() == h5py.h5d.COMPACT and dataset.nbytes < 2**16:
        return dataset[()]
    start, size = dataset.id.get_offset(), dataset.nbytes
    if how.get_layout() != h5py.h5d.CONTIGUOUS:
        return Unknown("compressed, or in chunks; save it as Keras does")
    if start is None or start + size > len(raw):
        return Unknown(f"of shape {dataset.shape}, and the file has not so many numbers")
    return raw[start : start + size].view(dataset.dtype).reshape(dataset.shape)


def _datasets(file: "h5py.File", path: Path) -> Iterator[tuple[str, Any]]:
    top = _inside(file, "model_weights", path) if "model_weights" in file else file
    if "layer_names" in top.attrs:
        return _old(top, path)
    if "layers" in top or "_layer_checkpoint_dependencies" in top:
        return _keras_3(top, path, set())
    raise UserError(f"{path}: an HDF5 file, but not of Keras's weights: it has neither layer_names nor layers")


def _inside(group: "h5py.Group", name: str, path: Path) -> Any:
    """A group or data set below a group; links to other places are not followed."""
    for part in name.split("/"):
        if part and not isinstance(group.get(part, getlink=True), h5py.HardLink):
            if part not in group.keys():  # noqa: SIM118 (`in group` follows links)
                raise KeyError(f"it holds no {name}")
            raise UserError(
                f"{path}: {group.name.rstrip('/')}/{part} is a link to another place, which is not followed"
            )
        group = group[part] if part else group
    return group


def _attribute(attributes: Mapping[str, Any], name: str) -> Any:
    described = attributes.get_id(name)
    if math.prod(described.shape) * described.dtype.itemsize > _MOST_ATTRIBUTE:
        raise ValueError(f"{name} is too long")
    return attributes[name]


def _old(top: "h5py.Group", path: Path) -> Iterator[tuple[str, Any]]:
    for layer in map(_text, _attribute(top.attrs, "layer_names")):
        group = _inside(top, layer, path)
        given = [_text(name) for name in _attribute(group.attrs, "weight_names")]
        # A model inside the model is a layer there, and its tensors' names begin with those of its own layers.
        layers = {name.split("/")[-2] for name in given if "/" in name}
        for name in given:
            mine = name.split("/")[-2] if len(layers) > 1 and "/" in name else layer
            yield f"{mine}/{name.rpartition('/')[2].partition(':')[0]}", _inside(group, name, path)


def _keras_3(group: "h5py.Group", path: Path, seen: set[Any]) -> Iterator[tuple[str, Any]]:
    """The tensors of a layer, and of the layers inside it."""
    where = h5py.h5o.get_info(group.id)
    if (where.fileno, where.addr) in seen:
        return  # a loop
    seen.add((where.fileno, where.addr))
    for inner in ("layers", "_layer_checkpoint_dependencies"):
        if inner in group.keys():  # noqa: SIM118 (`in group` follows links)
            layers = _inside(group, inner, path)
            for name in layers.keys():  # noqa: SIM118
                yield from _keras_3(_inside(layers, name, path), path, seen)
    variables = _inside(group, "vars", path) if "vars" in group.keys() else ()  # noqa: SIM118
    if not len(variables):  # a group is true even where it is empty, as an activation's is
        return
    if "name" not in variables.attrs or len(variables) not in _VARIABLES:
        raise UserError(
            f"{path}: {group.name} has no name that tells which layer it is; load it with a newer Keras and save it "
            f"again"
        )
    for i, name in enumerate(_VARIABLES[len(variables)]):
        yield f"{_text(_attribute(variables.attrs, 'name'))}/{name}", _inside(variables, str(i), path)


def _with_usual_head(tensors: Tensors) -> tuple[Tensors, str]:
    """The tensors, the only dense layer with Keras's usual name whatever it has, and what was done, in words."""
    dense = [n.rpartition("/")[0] for n, t in tensors.items() if n.endswith("/kernel") and getattr(t, "ndim", 0) == 2]
    if len(dense) != 1 or dense[0] in _HEADS:
        return tensors, ""
    named = {name.replace(f"{dense[0]}/", f"{_HEADS[0]}/", 1) if name.startswith(f"{dense[0]}/") else name: tensor
             for name, tensor in tensors.items()}  # fmt: skip
    return named, f"its dense layer {dense[0]} is the last one"


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
