"""Reads the weights that Keras wrote: ``.weights.h5`` of Keras 3, and the older ``.h5``; Keras is not needed."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_flax.errors import UserError

if TYPE_CHECKING:
    import h5py

# What Keras 3 calls 0, 1, ... of a layer, by how many there are: a convolution or dense layer, or a BN.
_VARIABLES = {
    1: ("kernel",),
    2: ("kernel", "bias"),
    4: ("gamma", "beta", "moving_mean", "moving_variance"),
}


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file by names such as ``conv1_conv/kernel``.

    Raises:
      UserError: it is no such file, is damaged, or keeps no names of layers.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return dict(_tensors(file, path))
    except UserError:
        raise
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        text = str(error.args[0] if error.args else error).splitlines()
        raise UserError(f"{path}: not a readable file of Keras's weights: {text[0] if text else error}") from None


def _tensors(file: "h5py.File", path: Path) -> Iterator[tuple[str, np.ndarray]]:
    top = file.get("model_weights", file)
    if "layer_names" in top.attrs:
        return _old(top)
    if "layers" in top:
        return _keras_3(top["layers"], path)
    raise UserError(f"{path}: an HDF5 file, but not of Keras's weights: it has neither layer_names nor layers")


def _old(top: "h5py.Group") -> Iterator[tuple[str, np.ndarray]]:
    for layer in map(_text, top.attrs["layer_names"]):
        for name in map(_text, top[layer].attrs["weight_names"]):
            yield f"{layer}/{name.rpartition('/')[2].partition(':')[0]}", np.asarray(top[layer][name])


def _keras_3(layers: "h5py.Group", path: Path) -> Iterator[tuple[str, np.ndarray]]:
    for group in layers.values():
        variables = group.get("vars", ())
        if not len(variables):  # a group is true even where it is empty, as an activation's is
            continue
        if "name" not in variables.attrs or len(variables) not in _VARIABLES:
            raise UserError(
                f"{path}: {group.name} has no name that tells which layer it is; load it with a newer Keras and save "
                f"it again"
            )
        for i, name in enumerate(_VARIABLES[len(variables)]):
            yield f"{_text(variables.attrs['name'])}/{name}", np.asarray(variables[str(i)])


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
