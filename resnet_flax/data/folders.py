"""Data sets that are folders of photographs, in a folder for each class."""

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
from resnet_flax.errors import UserError
from resnet_flax.paths import expanded
from resnet_flax.runtime.progress import Progress

SUFFIXES = (
    ".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".webp", ".avif", ".jp2", ".bmp", ".gif", ".tif", ".tiff", ".tga", ".ppm",
    ".pgm",
)  # fmt: skip
_TEST_FOLDERS = ("val", "valid", "validation", "test")  # the first that is there
_SPLITS = ("train", "training", *_TEST_FOLDERS, "testing")  # what no data set has for its only classes
_LAYOUT = (
    "expected are a folder for each class (cat/1.jpg, dog/1.jpg), or a folder train and one of "
    "val, valid, validation and test with a folder for each class in both"
)
_THREADS = 8

Labelled = tuple[tuple[Path, int], ...]  # files and their classes, sorted


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """Which images there are in a folder.

    Attributes:
      folder: that was searched.
      classes: names, sorted; the places are the labels.
      train: files and their labels, sorted.
      test: likewise.
      note: in which order classes are taken whose names are numbers, where that is in doubt, and how many files were
        passed over because their names are not an image's; else empty.
      own_split: whether the folder itself says which images are for testing.
    """

    folder: Path
    classes: tuple[str, ...]
    train: Labelled
    test: Labelled
    note: str = ""
    own_split: bool = True


def scan(folder: Path, class_order: str = "names", testing: bool = False) -> ImageFolder:
    """Finds the classes and images of a folder, whichever of two layouts it has.

    Either there is a folder ``train`` and one of ``val``, ``valid``, ``validation`` and ``test`` (the first of these
    that is there), in letters of any case, with the same class folders in both; or class folders right away: then a
    fifth of each class's images is for testing, the same ones in every run. What is hidden or no image, by its name,
    does not count; folders inside class folders do.

    Args:
      class_order: ``names``, in which the classes 1, 2, 10 are sorted as 1, 10, 2 (torchvision's ImageFolder does so,
        too), or ``numbers``.
      testing: whether images for testing are enough: a folder of one split, or classes of one image, will do.

    Raises:
      UserError: the folder is not there, cannot be read, has neither layout, or its classes are no numbers although
        ``class_order`` says so; it says where and what.
    """
    folder = expanded(folder)
    try:
        if not folder.is_dir():
            raise UserError(f"data.folder={folder}: there is no such folder")
        inside = _subfolders(folder)
        splits = {name.lower(): name for name in inside}  # of Train and train, the latter: they are sorted
        test = next((splits[name] for name in _TEST_FOLDERS if name in splits), None)
        if "train" in splits and test is not None:
            return _two_splits(folder, splits["train"], test, class_order)
        if testing and list(splits) == ["train"]:
            return _one_split(folder / splits["train"], class_order, testing)
        if testing and test is not None and all(name in _SPLITS for name in splits):
            return _only_test(folder, splits[test.lower()], class_order)
        if list(splits) == ["train"]:
            raise UserError(
                f"{folder}: it has a folder {inside[0]}, but none of {', '.join(_TEST_FOLDERS)}; "
                f"to have a fifth of its images for testing, name {folder / inside[0]}"
            )
        if inside and all(name in _SPLITS for name in splits):
            raise UserError(f"{folder}: its folders are {', '.join(inside)}, which are no classes; {_LAYOUT}")
        return _one_split(folder, class_order, testing)
    except OSError as error:
        raise UserError(f"{error.filename or folder}: cannot be read: {error.strerror or error}") from None


def decoded_side(data: Mapping[str, Any]) -> int:
    """The side that photographs are kept at, ``data.resize`` or else ``data.image_size``.

    Raises:
      UserError: they do not say it, or the crop would be larger.
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
    """The images of a folder: uint8 [N, side, side, 3], the shorter side resized and the centre cropped.

    Args:
      crop: The side of the central crop taken later (see ``decoding.square_around_crop``); 0 for none.

    Raises:
      UserError: they would not fit into memory, or one cannot be read.
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
        images[place] = decoding.square_around_crop(files[place][0], side, crop, 3, interpolation)

    # PIL lets go of the interpreter's lock while it decodes and resizes.
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
            f"memory are available; choose a smaller data.resize (or data.image_size)"
        )


def _available_memory() -> int | None:
    """Bytes that may be taken without swapping; None where the system does not say."""
    try:
        # Linux; sysconf does not count what the file cache would give back.
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
            raise UserError(f"{folder}: {name} has {_listed(lacking)}, {other} does not; both need the same classes")
    return _labelled(folder, splits[train], splits[test], class_order, skipped)


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
    note = "; ".join(filter(None, [note, passed_over(skipped)]))

    def labelled(split: dict[str, list[Path]]) -> Labelled:
        return tuple((file, label) for label, name in enumerate(classes) for file in split[name])

    return ImageFolder(folder, classes, labelled(train), labelled(test), note)


def _ordered(folder: Path, names: list[str], class_order: str) -> tuple[tuple[str, ...], str]:
    """The classes in their order, and a note on it where numbers could be sorted in two ways."""
    if not all(name.isascii() and name.isdecimal() for name in names):
        if class_order == "numbers":
            other = next(name for name in names if not (name.isascii() and name.isdecimal()))
            raise UserError(f"data.class_order='numbers': {folder} has the class {other}, which is no number")
        return tuple(names), ""
    by_number = sorted(names, key=int)
    if by_number == names:
        return tuple(names), ""
    taken, other = (by_number, "names") if class_order == "numbers" else (names, "numbers")
    return tuple(taken), (
        f"classes are numbers, taken in the order {', '.join(taken[:3])}, ... ({class_order}); "
        f"data.class_order={other} is the other order"
    )


def _images_by_class(folder: Path, skipped: Counter[str]) -> dict[str, list[Path]]:
    """Class -> its images, sorted; refuses a folder that is not one of classes."""
    names = _subfolders(folder)
    if not names:
        loose = any(_is_image(p.name) for p in folder.iterdir())
        what = "images lie directly in it, without class folders" if loose else "it holds no class folders"
        raise UserError(f"{folder}: {what}; {_LAYOUT}")
    if len(names) < 2:
        raise UserError(f"{folder}: at least two class folders are needed, and it has only {names[0]}; {_LAYOUT}")
    found = {name: images(folder / name, skipped) for name in names}
    for name, files in found.items():
        if not files:
            raise UserError(f"{folder}: the class folder {name} holds no images ({', '.join(SUFFIXES)})")
    return found


def _subfolders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def passed_over(skipped: Counter[str]) -> str:
    """How many files were passed over, in words; empty where none was."""
    if not skipped:
        return ""
    kinds = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in skipped.most_common(5))
    return f"{skipped.total()} files passed over, as their names are not an image's ({kinds})"


def images(folder: Path, skipped: Counter[str] | None = None) -> list[Path]:
    """Every image in a folder and in those inside it, sorted; what is hidden or no image, by its name, does not count.

    Args:
      skipped: is told how many files of which suffix do not count.

    Raises:
      OSError: a folder cannot be read.
      UserError: a link leads nowhere.
    """
    found, seen, folders = [], set(), [str(folder)]
    while folders:
        place = folders.pop()
        # A link to a folder above it would never end.
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
                    # Only of links this asks the disk, which over a network takes minutes for a million files.
                    if not entry.is_file():
                        raise UserError(f"{entry.path}: a link to a file that is not there")
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
