"""CIFAR-10 and CIFAR-100 from their authors' archives (the binary or the Python version), without TensorFlow."""

import hashlib
import io
import pickle
import tarfile
import urllib.error
import urllib.request
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from resnet_flax.atomic import replacing
from resnet_flax.data.cache import Splits
from resnet_flax.data.images import Images
from resnet_flax.errors import UserError
from resnet_flax.runtime.progress import Progress

_URL = "https://www.cs.toronto.edu/~kriz/"

# Archive names in order of preference, with the MD5 sums that https://www.cs.toronto.edu/~kriz/cifar.html gives.
ARCHIVES: dict[str, dict[str, str]] = {
    "cifar10": {
        "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
        "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
    },
    "cifar100": {
        "cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8",
        "cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85",
    },
}
_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE


def find(name: str, folder: Path) -> Path | None:
    """Returns the preferred archive of a data set in the folder or its ``downloads/``; None if there is none."""
    for archive in ARCHIVES[name]:
        for place in (folder, folder / "downloads"):
            if (place / archive).is_file():
                return place / archive
    return None


def download(name: str, folder: Path) -> Path:
    """Downloads the binary archive into the folder, with a progress bar, and checks its MD5 sum.

    The file gets its final name only after the check.

    Raises:
      UserError: The archive cannot be downloaded, or its MD5 sum is wrong.
    """
    archive, md5 = next(iter(ARCHIVES[name].items()))
    target = folder / archive
    digest = hashlib.md5()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(target) as partial:
            with urllib.request.urlopen(_URL + archive, timeout=30) as response, open(partial, "wb") as file:
                size = int(response.headers.get("Content-Length", 0)) // 1024
                with Progress(size, f"downloading {archive}", "KiB") as progress:
                    while block := response.read(1 << 20):
                        file.write(block)
                        digest.update(block)
                        progress.update(len(block) // 1024)
            if digest.hexdigest() != md5:
                raise UserError(
                    f"{_URL + archive}: the download has the MD5 sum {digest.hexdigest()} instead of {md5} and "
                    f"was deleted; try again, or download the archive yourself into {folder}"
                )
    except (OSError, urllib.error.URLError) as error:
        raise UserError(
            f"{name} was not found in {folder}, and {_URL + archive} could not be downloaded ({error}); put one of "
            f"{', '.join(ARCHIVES[name])} there, or name the folder of a prepared TFDS data set in data.data_dir"
        ) from None
    return target


def read(name: str, archive: Path) -> Splits:
    """Reads the images, labels and class names of an archive; its members tell the format, not its name.

    Raises:
      UserError: The archive is damaged, or is not one of this data set's.
    """
    try:
        with tarfile.open(archive) as tar:
            files = {
                Path(member.name).name: file.read()
                for member in tar
                if member.isfile() and (file := tar.extractfile(member)) is not None
            }
            while tar.fileobj is not None and tar.fileobj.read(1 << 20):
                pass  # gzip's checksum is behind the last member, and compared only there
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise UserError(
            f"{archive}: the tar archive is damaged or cut short ({error}); delete it and download it again"
        ) from None
    try:
        return _read_binary(name, files) if any(f.endswith(".bin") for f in files) else _read_python(name, files)
    except (KeyError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"{archive}: this is not the {name} archive of its authors: {error}") from None


def _read_binary(name: str, files: dict[str, bytes]) -> Splits:
    """Reads records of one label byte (CIFAR-100: two, coarse and fine), then 3,072 pixels, channel by channel."""
    label_bytes = 1 if name == "cifar10" else 2

    def split(names: list[str]) -> Images:
        records = np.concatenate([np.frombuffer(_member(files, n), np.uint8) for n in names])
        records = records.reshape(-1, label_bytes + _PIXELS)
        return Images(_interleave(records[:, label_bytes:]), records[:, label_bytes - 1].astype(np.int32))

    if name == "cifar10":
        train, test = [f"data_batch_{i}.bin" for i in range(1, 6)], ["test_batch.bin"]
        names = _member(files, "batches.meta.txt")
    else:
        train, test = ["train.bin"], ["test.bin"]
        names = _member(files, "fine_label_names.txt")
    return split(train), split(test), tuple(names.decode().split())


def _read_python(name: str, files: dict[str, bytes]) -> Splits:
    labels = b"labels" if name == "cifar10" else b"fine_labels"

    def split(names: list[str]) -> Images:
        batches = [_unpickle(_member(files, n)) for n in names]
        pixels = np.concatenate([np.asarray(b[b"data"], np.uint8) for b in batches])
        return Images(_interleave(pixels), np.concatenate([b[labels] for b in batches]).astype(np.int32))

    if name == "cifar10":
        train, test = [f"data_batch_{i}" for i in range(1, 6)], ["test_batch"]
        names = _unpickle(_member(files, "batches.meta"))[b"label_names"]
    else:
        train, test = ["train"], ["test"]
        names = _unpickle(_member(files, "meta"))[b"fine_label_names"]
    return split(train), split(test), tuple(n.decode() for n in names)


def _member(files: dict[str, bytes], name: str) -> bytes:
    if name not in files:
        raise ValueError(f"it holds no {name}")
    return files[name]


def _interleave(pixels: np.ndarray) -> np.ndarray:
    """Returns pixels [N, 3072], which lie channel by channel, as [N, 32, 32, 3]."""
    return np.ascontiguousarray(pixels.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1))


class _ArraysOnly(pickle.Unpickler):
    """Unpickler of plain values and NumPy arrays; refuses everything else, as a pickle can call any function."""

    _ALLOWED = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(
                f"the pickle asks for {module}.{name}, which is neither a plain value nor an array"
            )
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _unpickle(content: bytes) -> dict[bytes, Any]:
    return _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
