"""Photographs that stay on disk: ImageNet 2012 in three forms, prepared TFDS data sets, and class folders.

ImageNet may be prepared by TFDS, or lie in its original tar files or in class folders. Nothing is decoded here; the
result is where each image lies, and its label.
"""

import dataclasses
import functools
import io
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from resnet_flax.data import folders, tars, tfds_sets
from resnet_flax.data.cache import cached_array
from resnet_flax.data.images import Found
from resnet_flax.data.photographs import Photographs, Records, TarMembers
from resnet_flax.errors import UserError, first_line
from resnet_flax.interchange.class_names import in_imagenets_order
from resnet_flax.runtime.progress import Progress

IMAGENET = "imagenet2012"  # the name in TFDS and in configs
TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
_TARS = {
    TRAIN: "a tar for each class inside, 147,897,477,120 bytes",
    VAL: "6,744,924,160 bytes",
    DEVKIT: "the labels of the validation images",
}
_THREADS, _AT_ONCE = 16, 4096  # threads that read labels; labels between two updates of the progress bar
_MANUAL = Path("downloads") / "manual"  # the folder in which TFDS expects the tar files


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A file or folder that may hold a data set or a part of it.

    Attributes:
      form: The form of the data set to which it belongs.
      path: The path that was looked at.
      note: What is expected at the path.
      found: What exists at the path; empty if nothing does.
    """

    form: str
    path: Path
    note: str
    found: str


def look(name: str, folder: Path) -> list[Wanted]:
    """Lists every place in which a data set is looked for, in order of preference, with what was found there.

    Raises:
      UserError: A folder cannot be read.
    """
    try:
        return _look(name, folder)
    except OSError as error:
        raise UserError(f"{error.filename or folder}: cannot be read: {error.strerror or error}") from None


def _look(name: str, folder: Path) -> list[Wanted]:
    place = tfds_sets.find(name, folder)
    found = f"version {place.name}" if place else ""
    if place and not tfds_sets.is_readable(place):
        found += ", in files that need TensorFlow"
    wanted = [Wanted("prepared by TFDS", place or folder / name, "dataset_info.json and array_record files", found)]
    if name == IMAGENET:
        there = _tar_folder(folder)
        for file, note in _TARS.items():
            path = there / file
            wanted.append(Wanted("original tar files", path, note, _size(path) if path.is_file() else ""))
        for split in ("train", "val"):
            path = folder / split
            found = f"{len(_class_folders(path))} class folders" if path.is_dir() else ""
            wanted.append(Wanted("class folders", path, "a folder for each class, such as n01440764", found))
    return wanted


def find(name: str, folder: Path, testing: bool = False) -> Found:
    """Finds a data set of photographs by name, in the first form that exists.

    Args:
      name: The name of the data set.
      folder: The folder of data sets.
      testing: Whether a test split is enough.

    Raises:
      UserError: Nothing was found (the message lists the places), or the files found are incomplete or damaged.
    """
    try:
        wanted = look(name, folder)
        prepared_set = wanted[0]
        if prepared_set.found and tfds_sets.is_readable(prepared_set.path):
            return _prepared(name, prepared_set.path)
        if name == IMAGENET:
            there = _tar_folder(folder)
            if any((there / file).is_file() for file in (TRAIN, VAL)):
                return _from_tars(there, testing)
            splits = {w.path.name: bool(w.found) for w in wanted if w.form == "class folders"}
            if splits["val"] and (splits["train"] or testing):
                order = in_imagenets_order(_class_folders(folder / "val"))
                found = of_folder(folder, "numbers" if order and order[0].isdecimal() else "names", testing)
                return found._replace(note=found.skipped if order else found.note, own_split=True)
        if prepared_set.found:
            return _prepared(name, prepared_set.path)  # raises an error that says what is wrong
    except OSError as error:
        raise UserError(f"{error.filename or folder}: cannot be read: {error.strerror or error}") from None
    looked = "; ".join(f"{w.path} ({w.form}: {w.note})" for w in wanted)
    raise UserError(
        f"data.name={name!r} was not found; looked for {looked}; set data.data_dir to the folder that holds it"
    )


def of_folder(folder: Path, class_order: str = "names", testing: bool = False) -> Found:
    """Finds the photographs in class folders; see :func:`resnet_flax.data.folders.scan`."""
    found = folders.scan(folder, class_order, testing)
    where, own = f"class folders in {found.folder}", found.own_split
    return Found(*found.photographs, found.classes, where, found.note, own, from_folders=True, skipped=found.skipped)


def _prepared(name: str, place: Path) -> Found:
    # ImageNet is tested on its validation images: its test images, which TFDS may have prepared, have no labels.
    info = tfds_sets.read_info(place, ("validation",) if name == IMAGENET else tfds_sets.TEST_SPLITS)

    @functools.cache
    def labels(split: str) -> np.ndarray:
        return _labels(Records(place, split), info.sizes[split])

    test, note = tfds_sets.choose_test(info, labels)
    classes = info.classes or tfds_sets.numbered_classes(labels("train"))

    def photographs(split: str) -> Photographs:
        return Photographs.all_of(Records(place, split), labels(split))

    where = f"TFDS data set in {place}"
    return Found(photographs("train"), photographs(test) if test else None, classes, where, note, bool(test))


def _labels(records: Records, count: int) -> np.ndarray:
    """Reads the label of every example; they are cached."""
    place, split, source = records.folder, records.split, records.read()

    def label(number: int) -> int:
        try:
            return int(source[number]["label"])
        except Exception as error:
            raise UserError(
                f"{place}: image {number} of {split} cannot be read: {first_line(error)}; was it copied completely?"
            ) from None

    def read() -> np.ndarray:
        labels = np.empty(len(source), np.int32)
        with (
            Progress(len(source), f"reading the labels of {split}", "images") as progress,
            ThreadPoolExecutor(_THREADS) as pool,  # a record holds its image too, so the disk is the bottleneck
        ):
            for first in range(0, len(source), _AT_ONCE):
                numbers = range(first, min(first + _AT_ONCE, len(source)))
                labels[numbers.start : numbers.stop] = list(pool.map(label, numbers))
                progress.update(len(numbers))
        return labels

    files = sorted(p for p in place.iterdir() if p.is_file())
    labels = cached_array(f"labels-{place.parent.name}-{split}", files, read)
    if len(labels) != count:
        raise UserError(
            f"{place}: {split} should have {count} images, but has {len(labels)}; was it copied completely?"
        )
    return labels


def _tar_folder(folder: Path) -> Path:
    manual = folder / _MANUAL
    return manual if not (folder / TRAIN).is_file() and (manual / TRAIN).is_file() else folder


def _from_tars(folder: Path, testing: bool) -> Found:
    needed = {file: note for file, note in _TARS.items() if not (testing and file == TRAIN)}
    missing = [f"{folder / file} ({note})" for file, note in needed.items() if not (folder / file).is_file()]
    if missing:
        raise UserError(f"{IMAGENET} in tar files is incomplete; missing: {', '.join(missing)}")
    no_members = TarMembers(folder / VAL, *(np.empty(0, kind) for kind in ("S1", np.int64, np.int64)))
    train = tars.members(folder / TRAIN) if (folder / TRAIN).is_file() else no_members
    numbers = [name.split(b".tar/")[0].decode() if b".tar/" in name else "" for name in train.names]
    if "" in numbers:
        loose = train.names[numbers.index("")].decode()
        raise UserError(
            f"{folder / TRAIN}: {loose} is not inside a class's tar such as n01440764.tar; is this the original file?"
        )
    test = tars.members(folder / VAL)
    truth = _validation_truth(folder / DEVKIT)
    classes = tuple(sorted(set(numbers or truth)))
    places = {number: place for place, number in enumerate(classes)}
    if len(truth) != len(test.names):
        raise UserError(f"{folder / VAL} holds {len(test.names)} images, but {DEVKIT} has {len(truth)} labels")
    unknown = sorted(set(truth) - set(classes))
    if unknown:
        raise UserError(
            f"{folder / TRAIN}: it lacks {unknown[0]}.tar, a class of the validation images; was it copied completely?"
        )
    # The development kit lists the labels in the order of the file names.
    by_name = np.argsort(test.names)
    labels = np.empty(len(truth), np.int32)
    labels[by_name] = [places[number] for number in truth]
    photographs = Photographs.all_of(train, np.asarray([places[number] for number in numbers]))
    return Found(photographs, Photographs.all_of(test, labels), classes, f"tar files in {folder}")


def _validation_truth(devkit: Path) -> list[str]:
    """Reads the WordNet numbers of the validation images, in the order of their file names."""
    from scipy.io import loadmat  # takes half a second, and only this file of ImageNet's needs it

    try:
        with tarfile.open(devkit) as archive:
            files = {Path(m.name).name: file.read() for m in _devkit_files(archive) if (file := archive.extractfile(m))}
        synsets = loadmat(io.BytesIO(files["meta.mat"]), squeeze_me=True)["synsets"]
        numbers = {int(i): str(n) for i, n in zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)}
        return [numbers[int(line)] for line in files["ILSVRC2012_validation_ground_truth.txt"].split()]
    except Exception as error:  # tarfile and SciPy raise many types for a damaged file
        raise UserError(f"{devkit}: cannot be read; was it copied completely? ({first_line(error)})") from None


def _devkit_files(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    wanted = ("meta.mat", "ILSVRC2012_validation_ground_truth.txt")
    return (m for m in archive if m.isfile() and m.name.endswith(wanted))


def _class_folders(path: Path) -> list[str]:
    return [p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")]


def _size(path: Path) -> str:
    return f"{path.stat().st_size:,} bytes"
