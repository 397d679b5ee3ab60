"""Data sets by name: the embedded digits, CIFAR-10 and -100, any prepared TFDS set; folders; no TensorFlow."""

import hashlib
import json
import os
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from resnet_flax.data import archives, prepared
from resnet_flax.data.cache import Splits, cached
from resnet_flax.data.images import Dataset, Images, split_off_validation, subset
from resnet_flax.data.photographs import PhotoDataset
from resnet_flax.errors import UserError
from resnet_flax.paths import expanded
from resnet_flax.progress import Progress

IMAGENET = "imagenet2012"


class _Size(NamedTuple):
    """What images are resized to: a side in pixels (0 leaves them as they are), by a filter of ``decoding``."""

    side: int
    interpolation: str = "box"

    def cache_name(self, name: str) -> str:
        """The name in the cache: other filters than the box have entries of their own."""
        return name if not self.side or self.interpolation == "box" else f"{name}-{self.interpolation}"


def load(data: Mapping[str, Any]) -> Dataset:
    """The data set that the section ``data`` of a config names.

    With ``data.folder``, the photographs there (:mod:`resnet_flax.data.folders`). Otherwise looks, in this order,
    for: the embedded digits; a prepared TFDS data set in ``data.data_dir`` (by default ``TFDS_DATA_DIR``, else
    ``~/tensorflow_datasets``); for CIFAR, an archive of its authors there; for CIFAR and where ``data.download`` is
    on, that archive on the web.

    Raises:
      UserError: nothing found, and where it was looked for; or what was found does not fit.
    """
    name, size = data["name"], _Size(data["image_size"], data.get("interpolation", "box"))
    if data.get("folder"):
        name = data["folder"]
        train, test, classes = _photographs(data)
    elif name == "folder":
        raise UserError("data.folder is missing: the folder of the photographs, --config.data.folder=FOLDER")
    elif name == "digits":
        train, test, classes = _digits(size)
    else:
        train, test, classes = _named(data, size)
    train, validation = _train_and_validation(train, data, name)
    return Dataset(train=train, test=test, validation=validation, classes=classes)


def load_photographs(data: Mapping[str, Any]) -> PhotoDataset:
    """The same of photographs that stay on disk (``data.pipeline=stream``).

    Those of ``data.folder``; or a prepared TFDS data set by name; or ImageNet 2012 in any of its forms
    (:mod:`resnet_flax.data.imagenet`).

    Raises:
      UserError: nothing found, and where it was looked for; or what was found does not fit.
    """
    # Imported here, as PIL is elsewhere: other data sets do without.
    from resnet_flax.data import imagenet

    if data["folder"]:
        found = imagenet.of_folder(Path(data["folder"]))
    elif data["name"] in ("folder", "digits"):
        raise UserError(
            f"data.name={data['name']!r}, data.pipeline='stream': name a folder of photographs in data.folder"
        )
    else:
        found = imagenet.find(data["name"], data_dir(data["data_dir"]))
    where, classes, train, test = found
    train, validation = _train_and_validation(train, data, where)
    return PhotoDataset(where, classes, train, test, validation)


def _train_and_validation(train: Any, data: Mapping[str, Any], name: str) -> tuple[Any, Any]:
    """The settings ``data.validation`` and ``data.subset`` on the training images."""
    if data["validation"] >= len(train):
        raise UserError(
            f"data.validation={data['validation']} must be below the {len(train)} training images of {name}"
        )
    train, validation = split_off_validation(train, data["validation"])
    wanted = data.get("subset", 0)
    if wanted > len(train):
        raise UserError(f"data.subset={wanted} must be at most the {len(train)} training images of {name}")
    return subset(train, wanted) if wanted else train, validation


def _photographs(data: Mapping[str, Any]) -> Splits:
    # Imported here, as PIL is elsewhere: other data sets do without.
    from resnet_flax.data import folders

    side, interpolation = folders.decoded_side(data), data.get("interpolation", "box")
    found = folders.scan(Path(data["folder"]))
    labelled = found.train + found.test
    # Links may put the same files into other classes or splits, which the files themselves do not tell.
    files = [[str(path.relative_to(found.folder)), label] for path, label in labelled]
    layout = hashlib.sha256(json.dumps([found.classes, len(found.train), files]).encode()).hexdigest()[:8]
    name = f"folder-{found.folder.resolve().name[:40]}-{interpolation}-{layout}"
    return cached(name, [path for path, _ in labelled], side, lambda: folders.decode(found, side, interpolation))


def _named(data: Mapping[str, Any], size: _Size) -> Splits:
    name, folder = data["name"], data_dir(data["data_dir"])
    place = prepared.find(name, folder)
    archive = archives.find(name, folder) if name in archives.ARCHIVES else None
    if place is None and archive is None:
        if name not in archives.ARCHIVES or not data["download"]:
            raise UserError(_nothing_found(name, folder))
        archive = archives.download(name, folder)
    entry = size.cache_name(name)
    if place is not None:
        files = [p for p in place.iterdir() if p.is_file()]
        return cached(entry, files, size.side, lambda: _read_prepared(place, size))
    return cached(entry, [archive], size.side, lambda: _resized(archives.read(name, archive), size))


def data_dir(given: str) -> Path:
    """The folder that ``data.data_dir`` names, or else the environment, or else TFDS's own."""
    folder = expanded(given or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    if given and not folder.is_dir():
        raise UserError(f"data.data_dir={given}: there is no such folder")
    if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
        raise UserError(f"{folder}: this folder cannot be read: Permission denied; name another in data.data_dir")
    return folder


def _nothing_found(name: str, folder: Path) -> str:
    looked = f"a prepared TFDS data set in {folder / name}"
    if name in archives.ARCHIVES:
        looked += f", and {' or '.join(archives.ARCHIVES[name])} in {folder}"
    hint = "name its folder in data.data_dir"
    if name in archives.ARCHIVES:
        hint += ", or set data.download=True"
    elif "/" not in name and not (folder / name).is_dir():
        hint += "; embedded: digits; fetched by itself: cifar10, cifar100"
    return f"data.name={name!r}: looked for {looked}, and found nothing; {hint}"


def _digits(size: _Size) -> Splits:
    """The 1,797 8x8 digits inside scikit-learn, from the cache once they were read: importing it takes a second."""
    file = Path(str(metadata.distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")))
    if not file.is_file():
        return _read_digits(size)
    return cached(size.cache_name("digits"), [file], size.side, lambda: _read_digits(size))


def _read_digits(size: _Size) -> Splits:
    """Always split alike: every fifth image of a class is for testing. Their grey values 0 to 16 become 0 to 255."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int32)
    test = np.zeros(len(labels), bool)
    for label in range(10):
        test[np.flatnonzero(labels == label)[4::5]] = True
    splits = Images(pixels[~test], labels[~test]), Images(pixels[test], labels[test]), tuple("0123456789")
    return _resized(splits, size)


def _read_prepared(folder: Path, size: _Size) -> Splits:
    found = prepared.read_info(folder)
    train, test = (_decode(prepared.decoded(folder, split), folder, split, size) for split in ("train", found.test))
    return train, test, found.classes


def _decode(source: Any, folder: Path, split: str, size: _Size) -> Images:
    images, labels = [], []
    with Progress(len(source), f"decoding {folder.parent.name} {split}", "images") as progress:
        for i in range(len(source)):
            try:
                example = source[i]
            except Exception as error:
                raise UserError(
                    f"{folder}: image {i} of {split} cannot be read: {prepared.first_line(error)}; is it whole?"
                ) from None
            images.append(_resize(example["image"], size))
            labels.append(example["label"])
            if images[-1].shape != images[0].shape:
                raise UserError(
                    f"{folder}: images differ in shape ({images[0].shape}, then {images[-1].shape} at {i} of {split}); "
                    f"set data.image_size to bring them to one"
                )
            progress.update(1)
    return Images(np.stack(images), np.asarray(labels, np.int32))


def _resized(splits: Splits, size: _Size) -> Splits:
    train, test, classes = splits
    return _resized_images(train, size), _resized_images(test, size), classes


def _resized_images(data: Images, size: _Size) -> Images:
    if size.side in (0, data.images.shape[1]):
        return data
    return Images(np.stack([_resize(image, size) for image in data.images]), data.labels)


def _resize(image: np.ndarray, size: _Size) -> np.ndarray:
    """Filtered to a square of that side, uint8."""
    side = size.side
    if not side or image.shape[:2] == (side, side):
        return image
    from PIL import Image

    from resnet_flax.data.decoding import resampling

    grey = image.shape[-1] == 1
    resized = Image.fromarray(image[..., 0] if grey else image).resize((side, side), resampling(size.interpolation))
    return np.asarray(resized).reshape(side, side, image.shape[-1])
