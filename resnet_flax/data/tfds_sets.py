"""Data sets that TFDS prepared, read without TensorFlow."""

import contextlib
import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from resnet_flax.errors import UserError

TESTED_ON = "tested on "  # begins the note of a data set whose test images are others than its split test
_NO_SPLIT = "it has no split for testing"
TESTED_ON_A_FIFTH = f"{TESTED_ON}a fifth of its training images, which are not trained on: {_NO_SPLIT}"
TEST_SPLITS = ("test", "validation")  # names of the split for testing, in order of preference


class Info(NamedTuple):
    """Splits, classes, sizes and channels that a prepared data set declares.

    Attributes:
      tests: splits that are for testing if they have labels, in order of preference; all those of ``TEST_SPLITS``.
      classes: names; empty where labels are plain integers.
      sizes: images by split.
      channels: of the images, where it says so.
    """

    tests: tuple[str, ...]
    classes: tuple[str, ...]
    sizes: dict[str, int]
    channels: int | None


def find(name: str, folder: Path) -> Path | None:
    """The newest version of a prepared data set, ``folder/name[/config]/version``; or the folder itself.

    Raises:
      UserError: several builder configs are there, and the name does not say which.
    """
    places = [folder] if _is_prepared(folder, name) else []
    if (folder / name).is_dir():
        # Not any deeper: class folders may lie there instead, with a million files.
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
    """Reads what a prepared data set says of itself.

    Args:
      tests: names of the split for testing, in order of preference.

    Raises:
      UserError: it cannot be read, or is none of images with labels.
    """
    builder = _builder(folder)
    features, splits = builder.info.features, builder.info.splits
    if "image" not in features or "label" not in features or "train" not in splits:
        raise UserError(
            f"{folder}: not an image classification set: it needs the features image and label and the split "
            f"train, and has the features {', '.join(features)} and the splits {', '.join(splits)}"
        )
    shape, dtype = features["image"].shape, np.dtype(features["image"].np_dtype)
    if dtype not in (np.uint8, np.uint16):
        raise UserError(f"{folder}: its images are of {dtype}; wanted are images of 8 or 16 bits")
    return Info(
        tests=tuple(s for s in tests if s in splits),
        classes=tuple(getattr(features["label"], "names", ())),
        sizes={s: splits[s].num_examples for s in ("train", *tests) if s in splits},
        channels=shape[2] if len(shape) == 3 else None,
    )


def choose_test(info: Info, labels: Callable[[str], np.ndarray]) -> tuple[str, str]:
    """Chooses the split for testing: the first that has labels.

    Args:
      labels: of a split's examples; -1 is none.

    Returns:
      its name, or "" where a fifth of the training images is to stand in for it; and a note that says so, if it is not
      the first one.
    """
    test = next((split for split in info.tests if (np.asarray(labels(split)) != -1).any()), "")
    if test:
        unlabelled = info.tests[: info.tests.index(test)]
        return test, f"{TESTED_ON}its split {test}: {' and '.join(unlabelled)} has no labels" if unlabelled else ""
    if not info.tests:
        return "", TESTED_ON_A_FIFTH
    return "", TESTED_ON_A_FIFTH.replace(_NO_SPLIT, f"{' and '.join(info.tests)} has no labels")


def numbered_classes(labels: np.ndarray) -> tuple[str, ...]:
    """Class names "0", "1", ... for labels that are plain integers: as many as there are different ones."""
    return tuple(str(i) for i in range(len(np.unique(labels))))


def encoded(folder: Path, split: str) -> Sequence[dict[str, Any]]:
    """The examples of a split, by number: ``image``, the bytes of its file, and ``label``.

    Raises:
      UserError: it cannot be read without TensorFlow.
    """
    return _source(folder, split, {"image": _tfds().decode.SkipDecoding()})


def _is_prepared(folder: Path, name: str) -> bool:
    info, (base, _, builder_config) = _info_file(folder), name.partition("/")
    return info.get("name") == base and (not builder_config or info.get("configName", "") == builder_config)


def is_readable(folder: Path) -> bool:
    """Whether its files are of the format that needs no TensorFlow."""
    return _info_file(folder).get("fileFormat") == "array_record"


def _info_file(folder: Path) -> dict[str, Any]:
    info = folder / "dataset_info.json"
    if not info.is_file():
        return {}
    try:
        return json.loads(info.read_text())
    except ValueError:
        raise UserError(f"{info}: not JSON; is it whole?") from None


def _check_classes(folder: Path) -> None:
    """Refuses a set whose features.json names a module of somebody else, which TFDS would import."""
    path = folder / "features.json"
    try:
        described = json.loads(path.read_bytes()) if path.is_file() else {}
        named = _class_names(described)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from None
    for name in named:
        if not re.fullmatch(r"tensorflow_datasets(\.core)?\.features(\.\w+)+", name):
            raise UserError(
                f"{path}: names the class {name[:80]!r}, which is none of TFDS's features; it is not loaded"
            )


def _class_names(described: Any) -> list[str]:
    if isinstance(described, list):
        return [name for part in described for name in _class_names(part)]
    if not isinstance(described, dict):
        return []
    # The last one is that of older versions; it may be the name of a feature, too.
    given = [(key, described.get(key)) for key in ("pythonClassName", "python_class_name", "type")]
    named = [name for key, name in given if isinstance(name, str) and (key != "type" or "." in name)]
    return named + [name for part in described.values() for name in _class_names(part)]


def _tfds() -> ModuleType:
    """Imports the library, which prints a banner to stdout; that belongs to the command that called us."""
    with contextlib.redirect_stdout(io.StringIO()):
        import tensorflow_datasets as tfds  # two seconds, and only for its own data sets
    return tfds


def _builder(folder: Path) -> Any:
    _check_classes(folder)
    tfds = _tfds()
    with contextlib.redirect_stdout(io.StringIO()):  # of its progress
        try:
            return tfds.builder_from_directory(folder)
        except Exception as error:  # whatever a half-copied folder makes TFDS raise
            raise UserError(f"{folder}: not a readable TFDS data set: {first_line(error)}") from None


def _source(folder: Path, split: str, decoders: dict[str, Any]) -> Any:
    builder = _builder(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            return builder.as_data_source(split, decoders=decoders)
        except NotImplementedError:
            raise UserError(
                f"{folder}: its files are {builder.info.file_format.value}, which cannot be read without TensorFlow; "
                f"prepare it with file_format='array_record'"
            ) from None
        except Exception as error:  # a shard that is missing or cut short
            raise UserError(f"{folder}: {split} cannot be read, is it whole? ({first_line(error)})") from None


def first_line(error: Exception) -> str:
    """Returns the first line of what an error says, or else its type."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
