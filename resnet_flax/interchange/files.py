"""Reads and writes files of weights: named tensors, and the config and preprocessing that the file may hold."""

import dataclasses
import functools
import hashlib
import json
import os
import re
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from resnet_flax.atomic import write_atomically
from resnet_flax.errors import UserError
from resnet_flax.interchange import hdf5, pickles
from resnet_flax.interchange.machine import Unknown
from resnet_flax.interchange.weight_layouts import common_prefix

# Keys in a safetensors file's metadata: JSON of the training run, and checksums of it and of the tensors, by name.
_DOCUMENTS = ("resnet_flax.config", "resnet_flax.preprocessing", "resnet_flax.photographs")
_CONFIG, _PREPROCESSING, _PHOTOGRAPHS = _DOCUMENTS
_SUMS = "resnet_flax.sums"


_ADVICE = "save a state dict with PyTorch: torch.save(model.state_dict(), 'weights.pth')"
# Keys under which checkpoints keep a state dict, and moving averages of the parameters. The first one found is read.
_PARTS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "teacher", "student")
_AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
_MOST_PARTS = 4  # the deepest nesting of such keys
_NUMBERS = "fiuV"  # NumPy's kinds of dtypes that weights may have; V is bfloat16


@dataclasses.dataclass(frozen=True)
class Weights:
    """The contents of a file of weights.

    Attributes:
      path: The file.
      tensors: The tensors by name. They are views of the file, which take no memory until they are copied.
      config: JSON of the training run's config, or None if the file does not hold it.
      preprocessing: JSON of :class:`~resnet_flax.data.preprocessing.Preprocessing`, or None.
      photographs: JSON of the training run's photographs.json, or None.
      others: Descriptions of the entries that are not readable tensors, by name.
    """

    path: Path
    tensors: dict[str, np.ndarray]
    config: str | None = None
    preprocessing: str | None = None
    photographs: str | None = None
    others: Mapping[str, str] = dataclasses.field(default_factory=dict)


def read(path: Path, given_as: str = "--weights") -> Weights:
    """Reads a file of weights in any supported format, and prints what is unusual about it.

    The format is recognised by the file's content, not by its name.

    Args:
      path: The file; ``FILE#KEY`` names one of several state dicts in a checkpoint.
      given_as: The flag or key that named the file, for messages.

    Raises:
      UserError: The file does not exist, has another format, is damaged, or is refused (see ``pickles.py`` and
        ``hdf5.py``).
    """
    part = ""
    if not os.path.isfile(path) and "#" in path.name:
        name, _, part = path.name.rpartition("#")
        path = path.with_name(name) if name else path
    if not os.path.isfile(path):  # Path.is_file raises if a name is too long
        raise UserError(f"{given_as}={path}: there is no such file")
    form = _form(path, given_as)
    if part and form != "PyTorch":
        raise UserError(f"{given_as}={path}#{part}: a {form} file has no parts to choose from")
    said = []
    if path.suffix.lower() not in _FORMS[form]:
        said.append(f"a {form} file by its content")
    if form == "safetensors":
        found = _read_safetensors(path)
    elif form == "Keras":
        tensors, renamed = hdf5.read(path)
        found = _weights(path, tensors)
        said += [renamed] if renamed else []
    else:
        state, where = _state_dict(pickles.read(path), path, part)
        found = _weights(path, state)
        said += where
    if found.config is None and (prefix := common_prefix(found.tensors)):
        said.append(f"all names without {prefix}")
    if said:
        _say(f"{path}: {'; '.join(said)}")
    return found


@functools.cache
def _say(line: str) -> None:
    """Prints a line on stderr, once per process."""
    print(line, file=sys.stderr)


_HDF5 = b"\x89HDF\r\n\x1a\n"
# The file formats with their usual suffixes.
_FORMS = {
    "safetensors": (".safetensors",),
    "PyTorch": (".th", ".pth", ".pt", ".tar", ".bin", ".ckpt"),
    "Keras": (".h5", ".hdf5", ".keras"),
}


def _form(path: Path, given_as: str) -> str:
    """Recognises a file's format by its content.

    Raises:
      UserError: The format is not supported; the message says what the file is.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(1024)
            if head.startswith(_HDF5):
                return "Keras"
            if head.startswith(b"PK\x03\x04"):
                return _form_of_zip(path)
            if head.startswith(pickles.LEGACY_HEAD) or pickles.is_tar(file):
                return "PyTorch"
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size:
        return "safetensors"
    raise UserError(f"{given_as}={path}: {_describe(head)}; must be a file of safetensors, PyTorch or Keras")


def _form_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UserError(f"{path}: a damaged zip file: {error}") from None
    if pickles.KERAS_MEMBER in names:
        return "Keras"
    if any(name.rpartition("/")[2] == "constants.pkl" for name in names):
        raise UserError(f"{path}: a TorchScript file, which is a program; load it with torch.jit.load, and {_ADVICE}")
    return "PyTorch"


def _describe(head: bytes) -> str:
    """Describes a file that holds no weights, given its first bytes."""
    text = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if not head:
        return "it is empty"
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file itself; fetch it: git lfs pull"
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page (HTML), not the file itself; download it again"
    if head.startswith(b"\x1f\x8b"):
        return "compressed by gzip; unpack it: gunzip"
    if named := re.match(rb"(?s:\x80.)?c([\w.]{1,100})\n([\w.]{1,100})\n", head):
        return f"a pickle that calls {b'.'.join(named.groups()).decode()}, which was not run; {_ADVICE}"
    if head.startswith(b"\x80"):
        return f"a pickle, but not one that torch.save wrote; {_ADVICE}"
    return f"no file of weights (it begins with {head[:8]!r})"


def write(
    path: Path, tensors: Mapping[str, np.ndarray], config: str, preprocessing: str, photographs: str | None = None
) -> None:
    """Writes a ``.safetensors`` file atomically.

    Args:
      config: JSON of the training run's config.
      preprocessing: JSON of the training run's preprocessing.
      photographs: JSON of the training run's photographs.json; None for a run of an earlier version.

    Raises:
      UserError: The path has another suffix, or cannot be written.
    """
    if path.suffix != ".safetensors":
        raise UserError(f"--output={path}: must end in .safetensors")
    # Unlike np.ascontiguousarray, this keeps a scalar's shape.
    tensors = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    metadata = {_CONFIG: config, _PREPROCESSING: preprocessing}
    if photographs is not None:
        metadata[_PHOTOGRAPHS] = photographs
    metadata |= {"format": "pt", _SUMS: json.dumps(_sums(tensors, metadata))}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # save_file would make a file that only its owner may read.
        write_atomically(path, save(tensors, metadata))
    except OSError as error:
        raise UserError(f"--output={path}: cannot be written: {error.strerror or error}") from None


_SAFETENSORS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": ml_dtypes.bfloat16, "I64": "<i8", "I32": "<i4", "I16": "<i2",
    "I8": "i1", "U8": "u1",
}  # fmt: skip


def _read_safetensors(path: Path) -> Weights:
    try:
        with safe_open(path, framework="numpy") as file:  # checks lengths and offsets
            metadata = file.metadata() or {}
        raw = np.asarray(np.memmap(path, np.uint8, mode="r"))
        start = 8 + int.from_bytes(raw[:8].tobytes(), "little")
        tensors = {}
        for name, entry in json.loads(raw[8:start].tobytes()).items():
            if name == "__metadata__":
                continue
            first, end = (start + offset for offset in entry["data_offsets"])
            dtype = _SAFETENSORS.get(entry["dtype"])
            tensors[name] = (
                Unknown(f"of type {entry['dtype']}")
                if dtype is None
                else raw[first:end].view(dtype).reshape(entry["shape"])
            )
    except (SafetensorError, OSError, TypeError, ValueError, KeyError, RecursionError) as error:
        raise UserError(f"{path}: not a readable safetensors file: {error}") from None
    found = _weights(path, tensors)
    for key in _DOCUMENTS:
        try:
            parsed = json.loads(metadata.get(key, "{}"))
        except (ValueError, RecursionError):
            raise UserError(f"{path}: {key} in its metadata is not JSON") from None
        if not isinstance(parsed, dict):
            raise UserError(f"{path}: {key} in its metadata is not a JSON object")
    _compare(path, found.tensors, metadata)
    config, preprocessing, photographs = map(metadata.get, _DOCUMENTS)
    return dataclasses.replace(found, config=config, preprocessing=preprocessing, photographs=photographs)


def _weights(path: Path, given: Mapping[str, Any]) -> Weights:
    """Separates the tensors from the other entries of a file."""
    tensors = {n: t for n, t in given.items() if isinstance(t, np.ndarray) and t.dtype.kind in _NUMBERS}
    others = {n: t.what if isinstance(t, Unknown) else getattr(t, "dtype", type(t)).__name__
              for n, t in given.items() if n not in tensors}  # fmt: skip
    return Weights(path, tensors, others=others)


def _sums(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> dict[str, str]:
    """Computes the SHA-256 of each tensor (dtype, shape and bytes) and of each JSON document, by name."""
    described = {
        name: _digest(f"{a.dtype.str}{a.shape}".encode() + np.ascontiguousarray(a).tobytes())
        for name, a in tensors.items()
    }
    return described | {key: _digest(metadata[key].encode()) for key in _DOCUMENTS if key in metadata}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _compare(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Warns if an exported file differs from its checksums. The file is used all the same."""
    if _CONFIG not in metadata:
        return  # another program wrote the file
    if _SUMS not in metadata:
        print(f"{path}: has no checksums (an earlier version wrote it); it is read unchecked", file=sys.stderr)
        return
    try:
        then = json.loads(metadata[_SUMS])
    except (ValueError, RecursionError):
        then = {}
    then = then if isinstance(then, dict) else {}
    now = _sums(tensors, metadata)
    differing = [name for name in sorted(now.keys() | then.keys()) if now.get(name) != then.get(name)]
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        print(
            f"{path}: not as it was exported, by its checksums: {', '.join(differing[:3])}{more}; it is damaged, or "
            f"another program rewrote it; export the run again",
            file=sys.stderr,
        )


def _state_dict(loaded: Any, path: Path, wanted: str) -> tuple[dict[str, Any], list[str]]:
    """Finds the state dict in an object from a PyTorch file.

    Args:
      loaded: The object: a state dict, or a checkpoint that holds one.
      wanted: The key that the user names, or an empty text.

    Returns:
      The tensors by name, and remarks for the user about which key was read.

    Raises:
      UserError: There is no state dict, or only code from the file could create it.
    """
    said, place = [], ""
    for _ in range(_MOST_PARTS):
        parts = (
            {key: value for key, value in loaded.items() if isinstance(key, str)} if isinstance(loaded, dict) else {}
        )
        if wanted:
            if not isinstance(parts.get(wanted), dict):
                there = ", ".join(key for key, value in parts.items() if isinstance(value, dict)) or "none"
                raise UserError(f"{path}: has no part {wanted!r}; it has: {there[:300]}")
            chosen, others, wanted = wanted, [], ""
        else:
            able = [key for key in (*_PARTS, *_AVERAGES) if isinstance(parts.get(key), dict | Unknown)]
            if not able:
                break
            chosen = able[0]
            others = [key for key in able[1:] if isinstance(parts[key], dict)]
        loaded, place = parts[chosen], f"{place}{chosen}."
        also = f" (the other: {path.name}#{others[0]})" if others else ""
        if also or chosen not in ("state_dict", "model_state_dict", "model"):
            said.append(f"its {chosen} is taken{also}")
    what = f"its {place.rstrip('.')}" if place else "it"
    if isinstance(loaded, Unknown):
        raise UserError(
            f"{path}: {what} is no state dict but {loaded.what}, which only code could create, and no code is run; "
            f"{_ADVICE}"
        )
    tensors = [v for v in loaded.values() if isinstance(v, np.ndarray)] if isinstance(loaded, dict) else []
    if not tensors:
        made = [v for v in loaded.values() if isinstance(v, Unknown)] if isinstance(loaded, dict) else []
        why = f" ({made[0].what} in it was not created, as no code is run)" if made else ""
        raise UserError(f"{path}: holds no state dict: no tensors by name, at the top or under 'state_dict'{why}")
    return {str(name): value for name, value in loaded.items()}, said
