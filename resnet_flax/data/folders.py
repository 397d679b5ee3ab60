"""Class folders: data sets of photographs with one folder for each class."""

import dataclasses
import os
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from resnet_flax.data import decoding
from resnet_flax.data.cache import Splits
from resnet_flax.data.images import Images, fifth
from resnet_flax.data.photographs import Files, Photographs
from resnet_flax.errors import UserError
from resnet_flax.paths import expanded
from resnet_flax.runtime.progress import Progress

SUFFIXES = (
    ".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".webp", ".avif", ".jp2", ".bmp", ".gif", ".tif", ".tiff", ".tga", ".ppm",
    ".pgm",
)  # fmt: skip
_TEST_FOLDERS = ("val", "valid", "validation", "test")  # the first that exists is the test split
_SPLITS = ("train", "training", *_TEST_FOLDERS, "testing")  # names of splits, which are not taken for classes
_LAYOUT = (
    "expected is one folder for each class (cat/1.jpg, dog/1.jpg), or a folder train and one of "
    "val, valid, validation and test with a folder for each class in both"
)
_WAY_OUT = (
    "repair or remove it (resnet_flax.preflight names every such file), or skip such files with data.pipeline=stream "
    "and data.broken=skip"
)
_THREADS = 8

Labelled = tuple[tuple[Path, int], ...]  # files and their labels, sorted


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """The images found in a folder, with their classes and splits.

    Attributes:
      classes: The names of the classes, in the order of the labels.
      train: The training images and their labels, sorted.
      test: The test images and their labels, sorted.
      order_note: A note for the user on the order of classes whose names are numbers, if there are two orders.
      skipped: A note on the files that were skipped because their names are not an image's, and on folders that could
        be the test split but are not, if there are any.
      own_split: Whether the folder itself has a test split; otherwise a fifth of the images was set aside.
    """

    folder: Path
    classes: tuple[str, ...]
    train: Labelled
    test: Labelled
    order_note: str = ""
    skipped: str = ""
    own_split: bool = True

    @property
    def note(self) -> str:
        """Both notes."""
        return "; ".join(filter(None, [self.order_note, self.skipped]))

    @property
    def photographs(self) -> tuple[Photographs, Photographs]:
        """The training and the test images as photographs on disk."""
        top = os.fsencode(self.folder / "x")[:-1]  # empty for ".", with which no path inside it begins

        def photographs(labelled: Labelled) -> Photographs:
            # One array of bytes: copying a million strings to each worker would take seconds.
            names = np.array([os.fsencode(path)[len(top) :] for path, _ in labelled])
            return Photographs.all_of(Files(self.folder, names), np.asarray([label for _, label in labelled]))

        return photographs(self.train), photographs(self.test)


def scan(folder: Path, class_order: str = "names", testing: bool = False) -> ImageFolder:
    """Finds the classes and images of a folder, which may have one of two layouts.

    In the first layout the folder holds ``train`` and one of ``val``, ``valid``, ``validation`` and ``test`` (the first
    that exists; the case of letters does not matter), with the same class folders in both. In the second layout it
    holds the class folders themselves; a fifth of each class's images is then set aside for testing, the same ones in
    every run. Hidden files and files whose names are not an image's are skipped. Folders inside class folders are
    searched too.

    Args:
      class_order: ``names``, which sorts the classes 1, 2, 10 as 1, 10, 2, like torchvision's ImageFolder; or
        ``numbers``.
      testing: Whether a test split is enough: a folder of one split, or classes of one image, is then accepted.

    Raises:
      UserError: The folder does not exist, cannot be read or has neither layout, or its classes are not numbers
        although ``class_order`` is ``numbers``.
    """
    folder = expanded(folder)
    try:
        if not folder.is_dir():
            raise UserError(f"data.folder={folder}: there is no such folder")
        inside = _subfolders(folder)
        splits = {name.lower(): name for name in inside}  # of Train and train the latter wins, as it comes last
        test = next((splits[name] for name in _TEST_FOLDERS if name in splits), None)
        if "train" in splits and test is not None:
            return _note_unused(_two_splits(folder, splits["train"], test, class_order), test, splits)
        if testing and list(splits) == ["train"]:
            return _one_split(folder / splits["train"], class_order, testing)
        if testing and test is not None and all(name in _SPLITS for name in splits):
            return _note_unused(_only_test(folder, test, class_order), test, splits)
        if list(splits) == ["train"]:
            raise UserError(
                f"{folder}: it has a folder {inside[0]}, but none of {', '.join(_TEST_FOLDERS)}; "
                f"name {folder / inside[0]} instead to test on a fifth of its images"
            )
        if inside and all(name in _SPLITS for name in splits):
            raise UserError(f"{folder}: its folders are {', '.join(inside)}, which are not classes; {_LAYOUT}")
        return _one_split(folder, class_order, testing)
    except OSError as error:
        raise UserError(f"{error.filename or folder}: cannot be read: {error.strerror or error}") from None


def decoded_side(data: Mapping[str, Any]) -> int:
    """Returns the side at which photographs are stored: ``data.resize``, or else ``data.image_size``.

    Raises:
      UserError: Neither is set, or the crop would be larger.
    """
    size, resize = data.get("image_size", 0), data.get("resize", 0)
    if not size:
        raise UserError(
            "data.image_size=0: photographs differ in size; set the side of the crop that networks see, such as 224 "
            "(and the shorter side before the crop in data.resize, such as 256)"
        )
    if resize and resize < size:
        raise UserError(f"data.resize={resize} must be at least data.image_size={size}, or 0 for the same")
    return resize or size


def decode(found: ImageFolder, side: int, interpolation: str, crop: int = 0) -> Splits:
    """Decodes the images of a folder to uint8 [N, side, side, 3]: the shorter side resized, the centre cropped.

    Args:
      found: The images and classes of the folder.
      side: The shorter side after resizing, and the side of the squares.
      interpolation: The resizing filter.
      crop: The side of the central crop taken later (see ``decoding.square_around_crop``); 0 for none.

    Raises:
      UserError: The images would not fit into memory, or one cannot be read.
    """
    _check_memory(len(found.train) + len(found.test), side)
    name = found.folder.resolve().name
    train, test = (
        _decode(files, side, crop or side, interpolation, f"decoding {name} {split}")
        for files, split in ((found.train, "train"), (found.test, "test"))
    )
    return train, test, found.classes


def _decode(files: Labelled, side: int, crop: int, interpolation: str, description: str) -> Images:
    images = np.empty((len(files), side, side, 3), np.uint8)

    def put(place: int) -> None:
        try:
            images[place] = decoding.square_around_crop(files[place][0], side, crop, 3, interpolation)
        except UserError as error:
            raise UserError(f"{error}; {_WAY_OUT}") from None

    # Threads suffice: PIL releases the interpreter's lock while it decodes and resizes.
    pool = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1))
    try:
        with Progress(len(files), description, "images") as progress:
            for _ in pool.map(put, range(len(files))):
                progress.update(1)
    finally:
        pool.shutdown(cancel_futures=True)
    return Images(images, np.asarray([label for _, label in files], np.int32))


def _check_memory(count: int, side: int) -> None:
    wanted, there = count * side * side * 3, _available_memory()
    if there is not None and wanted > 0.8 * there:
        raise UserError(
            f"{count} images of {side}x{side} pixels take {wanted / 2**30:.1f} GiB, and {there / 2**30:.1f} GiB of "
            f"memory are available; choose a smaller data.resize or data.image_size"
        )


def _available_memory() -> int | None:
    """Returns the bytes available without swapping; None if the system does not tell."""
    try:
        # On Linux: sysconf, below, would not count the memory that the file cache can release.
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    for pages in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"):
        if pages in os.sysconf_names:
            return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    return None


def _two_splits(folder: Path, train: str, test: str, class_order: str) -> ImageFolder:
    skipped: Counter[str] = Counter()
    splits = {name: _images_by_class(folder / name, skipped) for name in (train, test)}
    for name, other in ((train, test), (test, train)):
        lacking = sorted(splits[name].keys() - splits[other].keys())
        if lacking:
            raise UserError(
                f"{folder}: {name} has {_listed(lacking)}, but {other} does not; both need the same classes"
            )
    return _labelled(folder, splits[train], splits[test], class_order, skipped)


def _note_unused(found: ImageFolder, test: str, splits: Mapping[str, str]) -> ImageFolder:
    """Adds a note on the folders that could be the test split, too, but are not; ``splits`` holds all folders."""
    unused = [splits[name] for name in _TEST_FOLDERS if name in splits and splits[name] != test]
    note = f"the network is tested on the folder {test}; not used: {', '.join(unused)}" if unused else ""
    return dataclasses.replace(found, skipped="; ".join(filter(None, [found.skipped, note])))


def _only_test(folder: Path, test: str, class_order: str) -> ImageFolder:
    skipped: Counter[str] = Counter()
    images = _images_by_class(folder / test, skipped)
    return _labelled(folder, {name: [] for name in images}, images, class_order, skipped)


def _one_split(folder: Path, class_order: str, testing: bool) -> ImageFolder:
    train, test = {}, {}
    skipped: Counter[str] = Counter()
    for name, files in _images_by_class(folder, skipped).items():
        if len(files) < 2 and not testing:
            raise UserError(
                f"{folder}: the class folder {name} holds 1 image; at least 2 are needed, one of them for testing"
            )
        for_testing = set(fifth(len(files)).tolist())
        train[name] = [file for place, file in enumerate(files) if place not in for_testing]
        test[name] = [file for place, file in enumerate(files) if place in for_testing]
    return dataclasses.replace(_labelled(folder, train, test, class_order, skipped), own_split=False)


def _labelled(
    folder: Path,
    train: dict[str, list[Path]],
    test: dict[str, list[Path]],
    class_order: str,
    skipped: Counter[str],
) -> ImageFolder:
    classes, note = _ordered(folder, sorted(train), class_order)

    def labelled(split: dict[str, list[Path]]) -> Labelled:
        return tuple((file, label) for label, name in enumerate(classes) for file in split[name])

    return ImageFolder(folder, classes, labelled(train), labelled(test), note, skipped_in_words(skipped))


def _ordered(folder: Path, names: list[str], class_order: str) -> tuple[tuple[str, ...], str]:
    """Returns the classes in order, and a note if numbers could be sorted in two ways."""
    if not all(name.isascii() and name.isdecimal() for name in names):
        if class_order == "numbers":
            other = next(name for name in names if not (name.isascii() and name.isdecimal()))
            raise UserError(f"data.class_order='numbers': {folder} has the class {other}, which is not a number")
        return tuple(names), ""
    by_number = sorted(names, key=int)
    if by_number == names:
        return tuple(names), ""
    taken, other = (by_number, "names") if class_order == "numbers" else (names, "numbers")
    return tuple(taken), (
        f"class names are numbers, sorted as {', '.join(taken[:3])}, ... ({class_order}); "
        f"data.class_order={other} sorts them the other way"
    )


def _images_by_class(folder: Path, skipped: Counter[str]) -> dict[str, list[Path]]:
    """Returns each class's images, sorted; refuses a folder without class folders."""
    names = _subfolders(folder)
    if not names:
        loose = any(_is_image(p.name) for p in folder.iterdir())
        what = "it holds images, but no class folders" if loose else "it holds no class folders"
        raise UserError(f"{folder}: {what}; {_LAYOUT}")
    if len(names) < 2:
        raise UserError(f"{folder}: at least two class folders are needed, but it has only {names[0]}; {_LAYOUT}")
    found = {name: images(folder / name, skipped) for name in names}
    for name, files in found.items():
        if not files:
            raise UserError(f"{folder}: the class folder {name} holds no images ({', '.join(SUFFIXES)})")
    return found


def _subfolders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def skipped_in_words(skipped: Counter[str]) -> str:
    """Returns the number of skipped files in words, by suffix; empty if there are none."""
    if not skipped:
        return ""
    kinds = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in skipped.most_common(5))
    return f"{skipped.total()} files skipped, because their names are not an image's ({kinds})"


def images(folder: Path, skipped: Counter[str] | None = None) -> list[Path]:
    """Lists all images in a folder and its subfolders, sorted; skips hidden files and names that are not an image's.

    Args:
      skipped: A counter to which the suffixes of skipped files are added.

    Raises:
      OSError: A folder cannot be read.
      UserError: A link points to a missing file.
    """
    found, seen, folders = [], set(), [str(folder)]
    while folders:
        place = folders.pop()
        # A link to a parent folder would be followed for ever.
        real = os.path.realpath(place)
        if real in seen:
            continue
        seen.add(real)
        inside = []
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    inside.append(entry.path)
                elif _is_image(entry.name):
                    # is_file reads the disk only for links; Path.is_file would read it for all, which takes minutes
                    # over a network for a million files.
                    if not entry.is_file():
                        raise UserError(f"{entry.path}: this link points to a file that does not exist")
                    found.append(Path(entry.path))
                elif skipped is not None:
                    skipped[os.path.splitext(entry.name)[1].lower()] += 1
        folders += sorted(inside, reverse=True)
    return sorted(found)


def _is_image(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


def _listed(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{'the class' if len(names) == 1 else 'the classes'} {', '.join(names[:most])}{more}"
