"""Files of weights: tensors by name, and what the file says about them."""

import dataclasses
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from resnet_flax import sums
from resnet_flax.atomic import replacing
from resnet_flax.errors import UserError
from resnet_flax.interchange import hdf5, pickles

# Among a safetensors file's metadata: the JSON of the config that trained it, and of what came before the network.
_CONFIG, _PREPROCESSING = "resnet_flax.config", "resnet_flax.preprocessing"
_SUMS = "resnet_flax.sums"  # of these and of the tensors, by name


@dataclasses.dataclass(frozen=True)
class Weights:
    """What a file holds.

    Attributes:
      path: of the file.
      tensors: by the names of one of ``layouts.py``.
      config: JSON of the config that trained them, where the file has it.
      preprocessing: JSON of :class:`~resnet_flax.data.preprocessing.Preprocessing`, likewise.
    """

    path: Path
    tensors: dict[str, np.ndarray]
    config: str | None = None
    preprocessing: str | None = None


def read(path: Path, given_as: str = "--weights") -> Weights:
    """Reads a ``.safetensors``, ``.th``, ``.pth``, ``.pt`` or ``.h5`` file.

    Args:
      given_as: the flag or key that named it, for messages.

    Raises:
      UserError: it is not there, not such a file, damaged, or refused (see ``pickles.py``).
    """
    if not os.path.isfile(path):  # Path's own fails where a name is too long
        raise UserError(f"{given_as}={path}: there is no such file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in (".th", ".pth", ".pt"):
        return Weights(path, _state_dict(pickles.read(path), path))
    if path.suffix in (".h5", ".hdf5"):
        return Weights(path, hdf5.read(path))
    raise UserError(f"{given_as}={path}: must be a .safetensors, .th, .pth, .pt or .h5 file")


def write(path: Path, tensors: Mapping[str, np.ndarray], config: str, preprocessing: str) -> None:
    """Writes a ``.safetensors`` file, whole or not at all."""
    from safetensors.numpy import save_file

    if path.suffix != ".safetensors":
        raise UserError(f"--output={path}: must end in .safetensors")
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    metadata = {_CONFIG: config, _PREPROCESSING: preprocessing}
    metadata |= {"format": "pt", _SUMS: json.dumps(_sums(tensors, metadata))}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata)
    except OSError as error:
        raise UserError(f"--output={path}: cannot be written: {error.strerror or error}") from None


def _read_safetensors(path: Path) -> Weights:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError, TypeError) as error:
        raise UserError(f"{path}: not a readable safetensors file: {error}") from None
    for key in (_CONFIG, _PREPROCESSING):
        try:
            json.loads(metadata.get(key, "{}"))
        except (ValueError, RecursionError):
            raise UserError(f"{path}: {key} in its metadata is not JSON") from None
    _compare(path, tensors, metadata)
    return Weights(path, tensors, metadata.get(_CONFIG), metadata.get(_PREPROCESSING))


def _sums(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> dict[str, str]:
    """SHA-256 of each tensor (its dtype, its shape, its bytes) and of what the file says of itself, by name."""
    described = {
        name: sums.of(f"{a.dtype.str}{a.shape}".encode() + np.ascontiguousarray(a).tobytes())
        for name, a in tensors.items()
    }
    return described | {key: sums.of(metadata[key].encode()) for key in (_CONFIG, _PREPROCESSING) if key in metadata}


def _compare(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Says where a file of ours is not as it was exported; it is taken all the same."""
    if _CONFIG not in metadata:
        return  # somebody else's
    if _SUMS not in metadata:
        print(f"{path}: has no checksums (an earlier version wrote it); it is read unchecked", file=sys.stderr)
        return
    try:
        then = dict(json.loads(metadata[_SUMS]))
    except (ValueError, TypeError, RecursionError):
        then = {}
    now = _sums(tensors, metadata)
    differing = [name for name in sorted(now.keys() | then.keys()) if now.get(name) != then.get(name)]
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        print(
            f"{path}: not as it was exported, by its checksums: {', '.join(differing[:3])}{more}; damaged, or another "
            f"program rewrote it",
            file=sys.stderr,
        )


def _state_dict(loaded: Any, path: Path) -> dict[str, np.ndarray]:
    """The tensors by name: the object itself, or what stands there under the usual keys."""
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(v, np.ndarray) for v in loaded.values()):
        raise UserError(f"{path}: holds no state dict: no tensors by name, at the top or under 'state_dict'")
    return dict(loaded)
