"""Data sets prepared by TFDS (tensorflow_datasets), read without TensorFlow."""

import contextlib
import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from resnet_flax.errors import UserError, first_line

# Notes on the test images of a data set without a labelled split ``test`` begin with this.
TESTED_ON = "tested on "
_NO_SPLIT = "it has no split for testing"
TESTED_ON_A_FIFTH = f"{TESTED_ON}a fifth of its training images, which are not trained on: {_NO_SPLIT}"
TEST_SPLITS = ("test", "validation")  # in order of preference


class Info(NamedTuple):
    """The splits, classes, sizes and channels that a prepared data set declares.

    Attributes:
      tests: The candidates for the test split that exist, in order of preference; they may lack labels.
      classes: The names of the classes; empty if labels are plain integers.
      sizes: The number of images by split.
      channels: The number of channels; None if it is not declared.
    """

    tests: tuple[str, ...]
    classes: tuple[str, ...]
    sizes: dict[str, int]
    channels: int | None


def find(name: str, folder: Path) -> Path | None:
    """Finds the newest version of a prepared data set in ``folder/name[/config]/version`` or ``folder`` itself.

    Returns:
      Its folder, or None if there is none.

    Raises:
      UserError: Several builder configs are prepared, and the name does not say which.
    """
    places = [folder] if _is_prepared(folder, name) else []
    if (folder / name).is_dir():
        # Search no deeper: there may be class folders with a million files instead.
        found = [p for levels in ("*", "*/*") for p in (folder / name).glob(f"{levels}/dataset_info.json")]
        found = [p.parent for p in sorted(found)]
        own = [p for p in found if p.parent == folder / name]
        builder_configs = sorted({f"{name}/{p.parent.name}" for p in found})
        if not own and not places and len(builder_configs) > 1:
            raise UserError(
                f"data.name={name!r}: several builder configs are prepared in {folder / name}; name one of "
                f"{', '.join(builder_configs)}"
            )
        places += own or found

    def version(place: Path) -> tuple[int, ...]:
        return tuple(int(part) if part.isdecimal() else -1 for part in place.name.split("."))

    return max(places, key=version, default=None)


def read_info(folder: Path, tests: Sequence[str] = TEST_SPLITS) -> Info:
    """Reads the declarations of a prepared data set.

    Args:
      folder: The folder of the prepared data set.
      tests: The candidates for the test split, in order of preference.

    Raises:
      UserError: The data set cannot be read, or does not consist of images with labels.
    """
    builder = _builder(folder)
    features, splits = builder.info.features, builder.info.splits
    if "image" not in features or "label" not in features or "train" not in splits:
        raise UserError(
            f"{folder}: this is not an image classification data set: it needs the features image and label and the "
            f"split train, but has the features {', '.join(features)} and the splits {', '.join(splits)}"
        )
    shape, dtype = features["image"].shape, np.dtype(features["image"].np_dtype)
    if dtype not in (np.uint8, np.uint16):
        raise UserError(f"{folder}: its images have the type {dtype}; only images of 8 or 16 bits can be read")
    return Info(
        tests=tuple(s for s in tests if s in splits),
        classes=tuple(getattr(features["label"], "names", ())),
        sizes={s: splits[s].num_examples for s in ("train", *tests) if s in splits},
        channels=shape[2] if len(shape) == 3 else None,
    )


def choose_test(info: Info, labels: Callable[[str], np.ndarray]) -> tuple[str, str]:
    """Chooses the test split: the first candidate that has labels.

    Args:
      info: The declarations of the data set.
      labels: A function that returns the labels of a split; -1 stands for no label.

    Returns:
      The name of the split, or "" if a fifth of the training images has to be set aside; and a note on this, which is
      empty if the split is the first candidate.
    """
    test = next((split for split in info.tests if (np.asarray(labels(split)) != -1).any()), "")
    if test:
        unlabelled = info.tests[: info.tests.index(test)]
        return test, f"{TESTED_ON}its split {test}: {' and '.join(unlabelled)} has no labels" if unlabelled else ""
    if not info.tests:
        return "", TESTED_ON_A_FIFTH
    return "", TESTED_ON_A_FIFTH.replace(_NO_SPLIT, f"{' and '.join(info.tests)} has no labels")


def numbered_classes(labels: np.ndarray) -> tuple[str, ...]:
    """Returns the class names "0", "1", ... for plain integer labels, one for each different label."""
    return tuple(str(i) for i in range(len(np.unique(labels))))


def encoded(folder: Path, split: str) -> Sequence[dict[str, Any]]:
    """Opens a split as a sequence of examples with ``image`` (the encoded bytes) and ``label``.

    Raises:
      UserError: The split is damaged, or cannot be read without TensorFlow.
    """
    return _source(folder, split, {"image": _tfds().decode.SkipDecoding()})


def _is_prepared(folder: Path, name: str) -> bool:
    info, (base, _, builder_config) = _info_file(folder), name.partition("/")
    return info.get("name") == base and (not builder_config or info.get("configName", "") == builder_config)


def is_readable(folder: Path) -> bool:
    """Tells whether a prepared data set can be read without TensorFlow, by the format of its files."""
    return _info_file(folder).get("fileFormat") == "array_record"


def _info_file(folder: Path) -> dict[str, Any]:
    info = folder / "dataset_info.json"
    if not info.is_file():
        return {}
    try:
        return json.loads(info.read_text())
    except ValueError:
        raise UserError(f"{info}: this is not JSON; was it copied completely?") from None


def _check_classes(folder: Path) -> None:
    """Refuses a data set whose features.json names a class outside TFDS, whose module TFDS would import."""
    path = folder / "features.json"
    try:
        described = json.loads(path.read_bytes()) if path.is_file() else {}
        named = _class_names(described)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from None
    for name in named:
        if not re.fullmatch(r"tensorflow_datasets(\.core)?\.features(\.\w+)+", name):
            raise UserError(
                f"{path}: names the class {name[:80]!r}, which is not a feature of TFDS; the data set is not loaded"
            )


def _class_names(described: Any) -> list[str]:
    if isinstance(described, list):
        return [name for part in described for name in _class_names(part)]
    if not isinstance(described, dict):
        return []
    # Older versions have the class under "type", which may also be the name of a feature.
    given = [(key, described.get(key)) for key in ("pythonClassName", "python_class_name", "type")]
    named = [name for key, name in given if isinstance(name, str) and (key != "type" or "." in name)]
    return named + [name for part in described.values() for name in _class_names(part)]


def _tfds() -> ModuleType:
    """Imports the library; discards its banner, because stdout belongs to the command."""
    with contextlib.redirect_stdout(io.StringIO()):
        import tensorflow_datasets as tfds  # takes two seconds, and only its own data sets need it
    return tfds


def _builder(folder: Path) -> Any:
    _check_classes(folder)
    tfds = _tfds()
    with contextlib.redirect_stdout(io.StringIO()):  # discards its progress bar
        try:
            return tfds.builder_from_directory(folder)
        except Exception as error:  # TFDS raises many types for a half-copied folder
            raise UserError(f"{folder}: this TFDS data set cannot be read: {first_line(error)}") from None


def _source(folder: Path, split: str, decoders: dict[str, Any]) -> Any:
    builder = _builder(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            return builder.as_data_source(split, decoders=decoders)
        except NotImplementedError:
            raise UserError(
                f"{folder}: its files are {builder.info.file_format.value}, which cannot be read without TensorFlow; "
                f"prepare the data set again with file_format='array_record'"
            ) from None
        except Exception as error:  # a shard that is missing or cut short
            raise UserError(
                f"{folder}: {split} cannot be read; was it copied completely? ({first_line(error)})"
            ) from None
