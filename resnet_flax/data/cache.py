"""The cache of decoded images on disk, with which later starts take seconds."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from resnet_flax.data.images import Images

_FORMAT = 2  # increase it when the files or the decoding change; entries of other formats are not read

_ABOUT = "about.json"  # holds the checksums of an entry's arrays, and the names of the classes
_SPLITS = ("train", "test")

Splits = tuple[Images, Images, tuple[str, ...]]  # train, test, names of the classes


def cache_root() -> Path:
    """Returns the user's cache folder: ``$XDG_CACHE_HOME/resnet_flax``, else ``~/.cache/resnet_flax``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "resnet_flax"


def cached(name: str, sources: list[Path], image_size: int, decode: Callable[[], Splits]) -> Splits:
    """Returns the splits from the cache, or calls ``decode`` and caches its result.

    The key of an entry is its name, the image size, and the paths, sizes and modification times of the source files.
    An entry is written under a temporary name and then renamed, so that a crash leaves no partial entry and two
    processes may write at once. A damaged entry, by its checksums (SHA-256), is logged and replaced. If an entry cannot
    be written (a full disk), this is logged and the images are used from memory.

    Args:
      name: The name of the entry.
      sources: The files that the images are decoded from.
      image_size: The side of the decoded images; 0 for their own.
      decode: The function that decodes them.
    """
    fingerprint = _fingerprint([_FORMAT, name, image_size], sources)
    folder = cache_root() / "datasets" / f"{name.replace('/', '-')}-{fingerprint}"
    if folder.is_dir() and (found := _read(folder)) is not None:
        return found
    splits = decode()
    try:
        _write(folder, splits)
    except OSError as error:
        logging.warning("cannot cache decoded images in %s: %s", folder, error)
    return splits


def cached_array(name: str, sources: list[Path], read: Callable[[], np.ndarray]) -> np.ndarray:
    """Returns an array, such as labels, from the cache, or calls ``read`` and caches its result; see :func:`cached`."""
    folder = cache_root() / "arrays" / f"{name}-{_fingerprint([_FORMAT, name], sources)}"
    if folder.is_dir() and (found := _checked(folder, ["array.npy"])) is not None:
        return found["array.npy"]
    array = read()
    try:
        _replace(folder, {"array.npy": array})
    except OSError as error:
        logging.warning("cannot cache %s in %s: %s", name, folder.parent, error)
    return array


def _fingerprint(what: list, sources: list[Path]) -> str:
    stats = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(sources)]
    return hashlib.sha256(json.dumps([*what, stats]).encode()).hexdigest()[:16]


def _read(folder: Path) -> Splits | None:
    found = _checked(folder, [f"{split}_{what}.npy" for split in _SPLITS for what in ("images", "labels")])
    if found is None:
        return None
    train, test = (Images(found[f"{split}_images.npy"], np.array(found[f"{split}_labels.npy"])) for split in _SPLITS)
    return train, test, tuple(found["classes"])


def _write(folder: Path, splits: Splits) -> None:
    data = dict(zip(_SPLITS, splits[:2], strict=True))
    images = {f"{split}_images.npy": of.images for split, of in data.items()}
    labels = {f"{split}_labels.npy": of.labels for split, of in data.items()}
    _replace(folder, images | labels, splits[2])


def _checked(folder: Path, names: list[str]) -> dict[str, Any] | None:
    """Returns an entry's arrays by file name, and ``classes``; logs a warning and returns None if it is damaged."""
    try:
        about = json.loads((folder / _ABOUT).read_bytes())
        if about["sha256"] != _digest(about["entry"]):
            raise ValueError(f"wrong checksum of {_ABOUT}")
        entry, found = about["entry"], {}
        for name in names:
            found[name] = np.load(folder / name, mmap_mode="r", allow_pickle=False)
            if _sum(found[name]) != entry["arrays"][name]:
                raise ValueError(f"wrong checksum of {name}")
        return found | {"classes": entry["classes"]}
    except (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError) as error:
        logging.warning("the cache entry %s is damaged (%s); the images are decoded again", folder, error)
        return None


def _replace(folder: Path, arrays: dict[str, np.ndarray], classes: Sequence[str] = ()) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, array in arrays.items():
            np.save(partial / name, array)
        entry = {"arrays": {name: _sum(array) for name, array in arrays.items()}, "classes": list(classes)}
        about = {"sha256": _digest(entry), "entry": entry}
        (partial / _ABOUT).write_text(json.dumps(about))
        if folder.is_dir():  # only a damaged entry is replaced
            folder.rename(partial / "damaged")
        os.rename(partial, folder)
        shutil.rmtree(folder / "damaged", ignore_errors=True)
    except OSError as error:
        if not folder.is_dir():  # otherwise another process has written the same content
            raise error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _digest(entry: Any) -> str:
    return hashlib.sha256(json.dumps(entry).encode()).hexdigest()


def _sum(array: np.ndarray) -> str:
    """Returns the SHA-256 of an array's dtype, shape and bytes; reads a memory-mapped array in parts."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    rows = max(1, (1 << 24) // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        digest.update(np.ascontiguousarray(array[start : start + rows]).tobytes())
    return digest.hexdigest()
