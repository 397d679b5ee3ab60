"""Decoded images on disk, so that a second start takes seconds."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import logging

from resnet_flax.data.images import Images

_FORMAT = 2  # of the files below and of how images are decoded; a change of it makes new ones

Splits = tuple[Images, Images, tuple[str, ...]]  # train, test, names of the classes


def cache_root() -> Path:
    """The user's own cache folder: ``$XDG_CACHE_HOME/resnet_flax``, else ``~/.cache/resnet_flax``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "resnet_flax"


def cached(name: str, sources: list[Path], image_size: int, decode: Callable[[], Splits]) -> Splits:
    """What ``decode`` returns, from the cache if it holds that already.

    An entry is known by the source files' paths, sizes and times of change, and by the image size. It is written
    beside its place and then renamed, so that a crash leaves none half-written and two processes may write at
    once. Where it cannot be written (a full disk), that is said and the images are used from memory.
    """
    fingerprint = _fingerprint([_FORMAT, name, image_size], sources)
    folder = cache_root() / "datasets" / f"{name.replace('/', '-')}-{fingerprint}"
    if folder.is_dir():
        return _read(folder)
    splits = decode()
    try:
        _write(folder, splits)
    except OSError as error:
        logging.warning("decoded images are not cached in %s: %s", folder, error)
    return splits


def cached_array(name: str, sources: list[Path], read: Callable[[], np.ndarray]) -> np.ndarray:
    """The same of a single array without objects, such as labels."""
    path = cache_root() / "arrays" / f"{name}-{_fingerprint([_FORMAT, name], sources)}.npy"
    if path.is_file():
        return np.load(path, allow_pickle=False)
    array = read()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, array, allow_pickle=False)
            os.replace(partial, path)
        finally:
            Path(partial).unlink(missing_ok=True)
    except OSError as error:
        logging.warning("%s is not cached in %s: %s", name, path.parent, error)
    return array


def _fingerprint(what: list, sources: list[Path]) -> str:
    stats = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(sources)]
    return hashlib.sha256(json.dumps([*what, stats]).encode()).hexdigest()[:16]


def _read(folder: Path) -> Splits:
    def images(split: str) -> Images:
        pixels = np.load(folder / f"{split}_images.npy", mmap_mode="r")
        return Images(pixels, np.load(folder / f"{split}_labels.npy"))

    return images("train"), images("test"), tuple(json.loads((folder / "classes.json").read_text()))


def _write(folder: Path, splits: Splits) -> None:
    train, test, classes = splits
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for split, data in (("train", train), ("test", test)):
            np.save(partial / f"{split}_images.npy", data.images)
            np.save(partial / f"{split}_labels.npy", data.labels)
        (partial / "classes.json").write_text(json.dumps(classes))
        os.rename(partial, folder)
    except FileExistsError:
        pass  # another process was first, with the same content
    except OSError as error:
        if not folder.is_dir():
            raise error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
