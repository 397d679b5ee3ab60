"""Loaders, which read a data set into memory: digits, CIFAR-10 and -100, any prepared TFDS data set, class folders.

They are the functions ``images`` of the registry (:mod:`.datasets`). Photographs that stay on disk are found by
:mod:`.photograph_sets` instead.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from resnet_flax.data import archives, decoding, folders, tfds_sets
from resnet_flax.data.cache import Splits, cached, cached_array
from resnet_flax.data.images import Found, Images, check_labels, set_aside_fifth
from resnet_flax.data.photographs import Bytes
from resnet_flax.errors import UnknownName, UserError, first_line
from resnet_flax.paths import expanded
from resnet_flax.runtime.progress import Progress


class _Size(NamedTuple):
    """The size that loaded images are resized to.

    Attributes:
      side: The side of the square kept from the resized image, in pixels; 0 keeps images as they are.
      interpolation: The resizing filter, one of :mod:`.decoding`.
      crop: The side of the central crop taken from the squares later; 0 for none.
    """

    side: int
    interpolation: str = "box"
    crop: int = 0

    def cache_name(self, name: str) -> str:
        """Returns the name in the cache, which also tells filters and places of squares apart."""
        # The place of a square depends on side - crop only modulo 4: see the rounding in decoding.square_around_crop.
        beside = (self.side - self.crop) % 4 if self.crop else 0
        around = f"-{beside}" if beside else ""
        return name + around if not self.side or self.interpolation == "box" else f"{name}-{self.interpolation}{around}"


def digits(data: Mapping[str, Any]) -> Found:
    """Reads the digits inside scikit-learn, at the size in the section ``data`` of a config."""
    return Found(*_digits(_size(data)), where=data["name"])


def folder(data: Mapping[str, Any]) -> Found:
    """Reads the photographs in the class folders of ``data.folder`` (:mod:`resnet_flax.data.folders`).

    Raises:
      UserError: There is no such folder, or it is not one of class folders.
    """
    if not data["folder"]:
        raise UserError("data.folder is not set; name the folder of the photographs: --config.data.folder=FOLDER")
    splits, note, own_split = _photographs(data)
    return Found(*splits, data["folder"], note, own_split)


def named(data: Mapping[str, Any]) -> Found:
    """Reads the data set named by ``data.name``.

    The sources are tried in this order: a prepared TFDS data set in ``data.data_dir`` (by default ``TFDS_DATA_DIR``,
    else ``~/tensorflow_datasets``); for CIFAR, its authors' archive in the same folder; for CIFAR if ``data.download``
    is on, that archive on the web.

    Raises:
      UserError: No source has the data set (the message lists them), or its files are damaged or of another kind.
    """
    splits, note, own_split, source = _named(data, _size(data))
    return Found(*splits, data["name"], note, own_split, source=str(source))


def resized(found: Found, data: Mapping[str, Any]) -> Found:
    """Resizes images to ``data.image_size`` and ``data.resize`` if they have another size."""
    if data["folder"]:
        return found
    size = _size(data)
    test = None if found.test is None else _resized_images(found.test, size)
    return found._replace(train=_resized_images(found.train, size), test=test)


def _size(data: Mapping[str, Any]) -> _Size:
    """Returns the size for data sets by name, which without ``data.resize`` need no ``data.image_size``."""
    resize = data["resize"]
    side = folders.decoded_side(data) if resize else data["image_size"]
    return _Size(side, data["interpolation"], data["image_size"])


def _photographs(data: Mapping[str, Any]) -> tuple[Splits, str, bool]:
    size = _Size(folders.decoded_side(data), data["interpolation"], data["image_size"])
    found = folders.scan(expanded(data["folder"]), data["class_order"])
    labelled = found.train + found.test
    # The cache name holds the layout, as links can move the same files to other classes or splits.
    files = [[str(path.relative_to(found.folder)), label] for path, label in labelled]
    layout = hashlib.sha256(json.dumps([found.classes, len(found.train), files]).encode()).hexdigest()[:8]
    name = size.cache_name(f"folder-{found.folder.resolve().name[:40]}-{layout}")

    def decode() -> Splits:
        return folders.decode(found, size.side, size.interpolation, size.crop)

    train, test, classes = cached(name, [path for path, _ in labelled], size.side, decode)
    train, test = (
        dataclasses.replace(images, photographs=photographs)
        for images, photographs in zip((train, test), found.photographs, strict=True)
    )
    return (train, test, classes), found.note, found.own_split


def _named(data: Mapping[str, Any], size: _Size) -> tuple[Splits, str, bool, Path]:
    name, folder = data["name"], data_dir(data["data_dir"])
    place = tfds_sets.find(name, folder)
    archive = archives.find(name, folder) if name in archives.ARCHIVES else None
    entry = size.cache_name(name)
    if place is not None:
        files = [p for p in place.iterdir() if p.is_file()]
        # Cached, because asking TFDS would take a second at each start.
        chosen = cached_array(f"test-of-{place.parent.name}", files, lambda: np.array(_choose_test(place)))
        test, note = map(str, chosen)
        return cached(entry, files, size.side, lambda: _read_prepared(place, test, size)), note, bool(test), place
    if archive is None:
        if name not in archives.ARCHIVES or not data["download"]:
            raise UnknownName(_nothing_found(name, folder))
        archive = archives.download(name, folder)
    file = archive
    return cached(entry, [file], size.side, lambda: _resized(archives.read(name, file), size)), "", True, file


def data_dir(given: str) -> Path:
    """Returns the folder of data sets: ``data.data_dir``, else ``TFDS_DATA_DIR``, else TFDS's default."""
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
        hint += "; available without files: digits, cifar10, cifar100"
    return f"data.name={name!r}: looked for {looked}, and found nothing; {hint}"


def _digits(size: _Size) -> Splits:
    """Reads the 1,797 8x8 digits inside scikit-learn; cached, because importing scikit-learn takes a second."""
    file = Path(str(metadata.distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")))
    if not file.is_file():
        return _read_digits(size)
    return cached(size.cache_name("digits"), [file], size.side, lambda: _read_digits(size))


def _read_digits(size: _Size) -> Splits:
    """Reads the digits, tests on every fifth image of each class, and scales the grey values 0 to 16 to 0 to 255."""
    from sklearn.datasets import load_digits  # two seconds, and only where the digits are not cached yet

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int32)
    test = np.zeros(len(labels), bool)
    for label in range(10):
        test[np.flatnonzero(labels == label)[4::5]] = True
    splits = Images(pixels[~test], labels[~test]), Images(pixels[test], labels[test]), tuple("0123456789")
    return _resized(splits, size)


def _choose_test(folder: Path) -> tuple[str, str]:
    def labels(split: str) -> np.ndarray:
        return np.array([example["label"] for example in tfds_sets.encoded(folder, split)])

    return tfds_sets.choose_test(tfds_sets.read_info(folder), labels)


def _read_prepared(folder: Path, test: str, size: _Size) -> Splits:
    """Reads a prepared TFDS data set; if ``test`` is empty, a fifth of the training images becomes the test split."""
    info = tfds_sets.read_info(folder)
    found = [_decode(folder, split, size, info.channels) for split in ("train", test) if split]
    classes = info.classes or tfds_sets.numbered_classes(found[0].labels)
    for split, images in zip(("train", test), found, strict=False):
        check_labels(str(folder), split, images.labels, len(classes))
    train, held_out = found if test else set_aside_fifth(found[0])
    return train, held_out, classes


def _decode(folder: Path, split: str, size: _Size, channels: int | None) -> Images:
    source = tfds_sets.encoded(folder, split)
    images, labels = np.empty(0, np.uint8), np.empty(len(source), np.int32)
    with Progress(len(source), f"decoding {folder.parent.name} {split}", "images") as progress:
        for i in range(len(source)):
            try:
                example = source[i]
                image, labels[i] = _pixels(example["image"], channels), example["label"]
            except Exception as error:
                raise UserError(
                    f"{folder}: image {i} of {split} cannot be read: {first_line(error)}; was it copied completely?"
                ) from None
            image = _resize(image, size)
            if i == 0:  # allocate once for all images: stacking a list at the end would need twice the memory
                images = np.empty((len(source), *image.shape), np.uint8)
            if image.shape != images.shape[1:]:
                raise UserError(
                    f"{folder}: images differ in shape ({images.shape[1:]}, then {image.shape} at {i} of {split}); "
                    f"set data.image_size to resize all of them to one shape"
                )
            images[i] = image
            progress.update(1)
    return Images(images, labels)


def _pixels(file: Any, channels: int | None) -> np.ndarray:
    """Decodes the bytes of an image file as :mod:`.decoding` does files on disk; an array is returned unchanged.

    TFDS itself is not used, as it would take palette indices for grey values.
    """
    if isinstance(file, np.ndarray):
        return decoding.as_array(decoding.from_array(file))
    return decoding.as_array(decoding.read_photo(Bytes(file), channels or 3))


def _resized(splits: Splits, size: _Size) -> Splits:
    train, test, classes = splits
    return _resized_images(train, size), _resized_images(test, size), classes


def _resized_images(data: Images, size: _Size) -> Images:
    if size.side == 0 or data.images.shape[1:3] == (size.side, size.side):
        return data
    return Images(np.stack([_resize(image, size) for image in data.images]), data.labels)


def _resize(image: np.ndarray, size: _Size) -> np.ndarray:
    """Resizes and crops an image to the square of ``size``, uint8; keeps images that have this size."""
    if not size.side or image.shape[:2] == (size.side, size.side):
        return image
    return decoding.square_around_crop(image, size.side, size.crop or size.side, image.shape[-1], size.interpolation)
