"""Loaders that read a data set into memory: the digits, CIFAR-10 and -100, any prepared TFDS set; folders."""

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
from resnet_flax.errors import UnknownName, UserError
from resnet_flax.paths import expanded
from resnet_flax.runtime.progress import Progress


class _Size(NamedTuple):
    """The size that images are brought to.

    Attributes:
      side: of the square about their centre, in pixels; 0 leaves them as they are.
      interpolation: a filter of ``decoding``.
      crop: the side of what is cropped out of the squares' centres later; 0 for all of them.
    """

    side: int
    interpolation: str = "box"
    crop: int = 0

    def cache_name(self, name: str) -> str:
        """The name in the cache: other filters than the box, and other places of squares, have entries of their own."""
        # The place of a square depends on side - crop only modulo 4: see the rounding in decoding.square_around_crop.
        beside = (self.side - self.crop) % 4 if self.crop else 0
        around = f"-{beside}" if beside else ""
        return name + around if not self.side or self.interpolation == "box" else f"{name}-{self.interpolation}{around}"


def digits(data: Mapping[str, Any]) -> Found:
    """Reads the embedded digits, at the size that the section ``data`` of a config says."""
    return Found(*_digits(_size(data)), where=data["name"])


def folder(data: Mapping[str, Any]) -> Found:
    """Reads the photographs in the class folders of ``data.folder`` (:mod:`resnet_flax.data.folders`).

    Raises:
      UserError: there is no such folder, or it does not fit.
    """
    if not data["folder"]:
        raise UserError("data.folder is missing: the folder of the photographs, --config.data.folder=FOLDER")
    splits, note, own_split = _photographs(data)
    return Found(*splits, data["folder"], note, own_split)


def named(data: Mapping[str, Any]) -> Found:
    """Reads a data set by its name.

    Looks, in this order, for: a prepared TFDS data set in ``data.data_dir`` (by default ``TFDS_DATA_DIR``, else
    ``~/tensorflow_datasets``); for CIFAR, an archive of its authors there; for CIFAR and where ``data.download`` is
    on, that archive on the web.

    Raises:
      UserError: nothing found, and where it was looked for; or what was found does not fit.
    """
    splits, note, own_split = _named(data, _size(data))
    return Found(*splits, data["name"], note, own_split)


def resized(found: Found, data: Mapping[str, Any]) -> Found:
    """Brings images that do not have the size of ``data.image_size`` and ``data.resize`` to it."""
    if data["folder"]:
        return found
    train, test, _ = _resized((found.train, found.test, ()), _size(data))
    return found._replace(train=train, test=test)


def _size(data: Mapping[str, Any]) -> _Size:
    """The size of images by name: those of folders are brought to it in the same way (``folders.decoded_side``)."""
    resize = data["resize"]
    side = folders.decoded_side(data) if resize else data["image_size"]
    return _Size(side, data["interpolation"], data["image_size"])


def _photographs(data: Mapping[str, Any]) -> tuple[Splits, str, bool]:
    size = _Size(folders.decoded_side(data), data["interpolation"], data["image_size"])
    found = folders.scan(expanded(data["folder"]), data["class_order"])
    labelled = found.train + found.test
    # Links may put the same files into other classes or splits, which the files themselves do not tell.
    files = [[str(path.relative_to(found.folder)), label] for path, label in labelled]
    layout = hashlib.sha256(json.dumps([found.classes, len(found.train), files]).encode()).hexdigest()[:8]
    name = size.cache_name(f"folder-{found.folder.resolve().name[:40]}-{layout}")

    def decode() -> Splits:
        return folders.decode(found, size.side, size.interpolation, size.crop)

    return cached(name, [path for path, _ in labelled], size.side, decode), found.note, found.own_split


def _named(data: Mapping[str, Any], size: _Size) -> tuple[Splits, str, bool]:
    name, folder = data["name"], data_dir(data["data_dir"])
    place = tfds_sets.find(name, folder)
    archive = archives.find(name, folder) if name in archives.ARCHIVES else None
    entry = size.cache_name(name)
    if place is not None:
        files = [p for p in place.iterdir() if p.is_file()]
        # Cached as well, since asking TFDS takes a second of each start.
        chosen = cached_array(f"test-of-{place.parent.name}", files, lambda: np.array(_choose_test(place)))
        test, note = map(str, chosen)
        return cached(entry, files, size.side, lambda: _read_prepared(place, test, size)), note, bool(test)
    if archive is None:
        if name not in archives.ARCHIVES or not data["download"]:
            raise UnknownName(_nothing_found(name, folder))
        archive = archives.download(name, folder)
    file = archive
    return cached(entry, [file], size.side, lambda: _resized(archives.read(name, file), size)), "", True


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
    """Reads the images of TFDS data; with an empty name for ``test``, a fifth of those for training is set aside."""
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
                    f"{folder}: image {i} of {split} cannot be read: {tfds_sets.first_line(error)}; is it whole?"
                ) from None
            image = _resize(image, size)
            if i == 0:  # all of them in one place from the beginning, rather than in a list that is copied at the end
                images = np.empty((len(source), *image.shape), np.uint8)
            if image.shape != images.shape[1:]:
                raise UserError(
                    f"{folder}: images differ in shape ({images.shape[1:]}, then {image.shape} at {i} of {split}); "
                    f"set data.image_size to bring them to one"
                )
            images[i] = image
            progress.update(1)
    return Images(images, labels)


def _pixels(file: Any, channels: int | None) -> np.ndarray:
    """The image in the bytes of a file, as :mod:`~resnet_flax.data.decoding` reads those on disk; or an array as it is.

    TFDS itself would take the places in a palette for grey values.
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
    """Resized and cropped to a square of that side, uint8."""
    if not size.side or image.shape[:2] == (size.side, size.side):
        return image
    return decoding.square_around_crop(image, size.side, size.crop or size.side, image.shape[-1], size.interpolation)
