"""Reads Keras weights without Keras: ``.keras``, ``.weights.h5`` of Keras 3, and the older ``.h5``.

A subprocess finds the tensors' offsets in the file (``hdf5_index.py``), and the tensors are views of the file.
"""

import base64
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from resnet_flax.errors import UserError
from resnet_flax.interchange.machine import Unknown
from resnet_flax.interchange.pickles import KERAS_MEMBER, stored_member

_HEADS = ("predictions", "probs", "fc1000")  # Keras's names of the last layer; see weight_layouts.py
_SECONDS = 20  # limit of the subprocess's CPU time; ResNet-152's file takes 0.2 s

Tensors = dict[str, np.ndarray | Unknown]


def read(path: Path) -> tuple[Tensors, str]:
    """Reads the tensors of a Keras file.

    Returns:
      The tensors by names such as ``conv1_conv/kernel``, and a remark for the user if a name was changed.

    Raises:
      UserError: The file is not of Keras weights, is damaged, has no layer names, or refers to other files.
    """
    damaged = f"{path}: not a readable file of Keras's weights: "
    try:
        raw = np.asarray(np.memmap(path, np.uint8, mode="r"))
        start = 0
        if raw[:4].tobytes() == b"PK\x03\x04":
            with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
                info = archive.getinfo(KERAS_MEMBER)
                start = stored_member(file, info)
            raw = raw[start : start + info.file_size]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{damaged}{error}") from None
    found = _index(path, start, len(raw))
    if "refused" in found:
        raise UserError(f"{path}: {found['refused']}")
    if "damaged" in found:
        raise UserError(f"{damaged}{found['damaged']}")
    return _with_usual_head({name: _tensor(place, raw) for name, place in found["tensors"].items()})


def _index(path: Path, start: int, size: int) -> dict[str, Any]:
    """Runs ``hdf5_index.index`` in a subprocess; if it crashes or takes too long, returns the reason as ``damaged``."""
    program = Path(__file__).with_name("hdf5_index.py")
    command = [sys.executable, "-P", str(program), str(path), str(_SECONDS), str(start), str(size)]
    ended = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        start_new_session=True,  # so that Ctrl-C in the terminal does not reach it
    )
    if not ended.returncode:
        return json.loads(ended.stdout)
    if ended.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return {"damaged": f"HDF5's library did not finish within {_SECONDS} s"}
    said = ended.stderr.decode(errors="replace").strip().splitlines()
    return {"damaged": f"HDF5's library fails ({said[-1] if said else f'signal {-ended.returncode}'})"}


def _tensor(place: dict[str, Any], raw: np.ndarray) -> np.ndarray | Unknown:
    if "why" in place:
        return Unknown(place["why"])
    dtype, shape = np.dtype(place["dtype"]), tuple(place["shape"])
    if "bytes" in place:
        return np.frombuffer(base64.b64decode(place["bytes"]), dtype).reshape(shape)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return raw[place["offset"] : place["offset"] + size].view(dtype).reshape(shape)


def _with_usual_head(tensors: Tensors) -> tuple[Tensors, str]:
    """Gives the dense layer Keras's usual name, if the file has exactly one; returns the tensors and a remark."""
    dense = [n.rpartition("/")[0] for n, t in tensors.items() if n.endswith("/kernel") and getattr(t, "ndim", 0) == 2]
    if len(dense) != 1 or dense[0] in _HEADS:
        return tensors, ""
    named = {name.replace(f"{dense[0]}/", f"{_HEADS[0]}/", 1) if name.startswith(f"{dense[0]}/") else name: tensor
             for name, tensor in tensors.items()}  # fmt: skip
    return named, f"its dense layer {dense[0]} is the last one"
