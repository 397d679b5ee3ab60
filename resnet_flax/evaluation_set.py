"""The images that a trained network is evaluated on: which split, which crops, and whether it was trained on them."""

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.data import datasets
from resnet_flax.data.datasets import Data
from resnet_flax.data.views import View, check_view
from resnet_flax.errors import UserError
from resnet_flax.interchange.files import Weights
from resnet_flax.model import Model
from resnet_flax.paths import expanded
from resnet_flax.runs import resume
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.schemas import check_photographs, read_config
from resnet_flax.training.readiness import images_record
from resnet_flax.training.setup import check_precision

_SPLITS = ("test", "validation", "train", "all")


@dataclasses.dataclass(frozen=True)
class Trained:
    """The description of a network's training images, from its run or from an exported file.

    Attributes:
      its: The beginning of a message about the run's images, such as ``--workdir=FOLDER: its``.
      config: The run's config.
      read_photographs: Reads the content of its photographs.json; None if an earlier version wrote the run or the file.
    """

    its: str
    config: ConfigDict
    read_photographs: Callable[[], dict[str, Any] | None]

    @classmethod
    def of_run(cls, run: RunDirectory) -> "Trained":
        """Reads a run directory."""
        return cls(f"--workdir={run.path}: its", run.existing_config(), run.photographs)

    @classmethod
    def of_file(cls, file: Weights) -> "Trained | None":
        """Reads the metadata of an exported file; returns None for a file of another program."""
        if file.config is None:
            return None
        return cls(
            f"{file.path}: its run's", read_config(file.config.encode(), file.path), lambda: _photographs_of(file)
        )


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """The images to evaluate a network on, and the crops to take of them.

    Attributes:
      config: The resolved config.
      data: The data set that the config names.
      split: ``test``, ``validation``, ``train``, or ``all`` for every image.
      train: The images of ``data`` that are trained on, from which BN's statistics may be re-estimated.
      view: One of ``data.access.views``.
    """

    config: ConfigDict
    data: Data
    split: str
    train: Any
    view: View = "center"

    @property
    def splits(self) -> dict[str, Any]:
        """The splits to evaluate, by name. Empty splits are left out."""
        names = ("train", "test") if self.split == "all" else (self.split,)
        return {name: found for name in names if len(found := getattr(self.data, name))}

    @property
    def is_set_aside(self) -> bool:
        """True if images were divided between this split and others.

        A change of any image, or of their order, would then move images from one split to another.
        """
        divided = len(self.data.validation) or self.config.data.subset
        own = self.data.own_split and (self.split == "test" or not divided)
        return self.split != "all" and not own

    def description(self, net: Model, images: int) -> str:
        """Describes the images and the view for the user."""
        data, split = self.data, self.split
        taken = {"all": "all that are there", "test": "those for testing", "train": "those for training"}
        of = taken.get(split, split)
        if split == "test" and not data.own_split:
            of = "a fifth of each class, set aside for testing"
        note = f"; {data.note}" if data.note else ""
        return f"{images} {data.access.noun} ({data.where}), {of}{_view_description(self.view, net, data)}{note}"


def load_evaluation_set(
    config: ConfigDict,
    split: str | None = None,
    view: View = "center",
    trained: Trained | None = None,
) -> EvaluationSet:
    """Loads the data set of a config and selects the images of a split.

    Args:
      config: The resolved config.
      split: The split, as in :class:`EvaluationSet`. None selects the test split, or all images if the photographs have
        no split of their own and another program trained the weights.
      view: The crops of a photograph to average over.
      trained: What is known of the network's training; None if another program trained it.

    Raises:
      UserError: There is no such split or view, the images do not exist, the view is only for photographs, or the
        images of the training have changed.
    """
    if split not in (None, *_SPLITS):
        raise UserError(f"split={split!r} must be one of {', '.join(_SPLITS)}")
    check_view(view)
    check_precision(config)
    with configs.hint_at_module(config):
        data = datasets.load_for_evaluation(config.data)
    if view not in data.access.views:
        raise UserError(f"--view={view} is for photographs in a folder; name it in --config.data.folder")
    split = split or ("all" if trained is None and not data.own_split else "test")
    train = data.train
    if split == "all":
        data = datasets.load_for_evaluation({**config.data, "validation": 0, "subset": 0})
    chosen = EvaluationSet(config, data, split, train, view)
    if not chosen.splits:
        there = [name for name in ("train", "validation", "test") if len(getattr(data, name))]
        raise UserError(f"--split={split}: {data.where} has {' and '.join(there)} images; choose one of them")
    if trained is not None and chosen.is_set_aside:
        _check_photographs(trained, chosen)
    return chosen


def _check_photographs(trained: Trained, chosen: EvaluationSet) -> None:
    """Refuses images that have changed since the training; prints a remark if the config names another data set."""
    same = _data_set(chosen.config) == _data_set(trained.config)
    most = trained.config.data.validation
    if same and chosen.split == "validation" and len(chosen.data.validation) > most:
        raise UserError(
            f"data.validation={len(chosen.data.validation)}: {trained.its} training set {most} images aside and took "
            f"the others; choose {f'at most {most}' if most else '--split=test'}"
        )
    photographs = trained.read_photographs()
    if photographs is None:
        if chosen.data.from_folders:
            print(
                f"{trained.its} photographs are not known; if the {chosen.data.where} hold others now, "
                f"--split={chosen.split} is not what was set aside in training",
                file=sys.stderr,
            )
        return
    # Compared as the run divided them: a smaller subset of the same images is none that has changed.
    division = {key: trained.config.data[key] for key in ("validation", "subset")}
    divided = all(chosen.config.data[key] == value for key, value in division.items())
    data = chosen.data if divided else datasets.load_for_evaluation({**chosen.config.data, **division})
    now = images_record(data)
    changed, noun = resume.changed_photographs(photographs, now), now["form"].split()[0]
    if not changed:
        return
    if not same:
        print(
            f"{trained.its} {noun} were others: {changed}; --split={chosen.split} is set aside from those now, and may "
            f"hold some that were trained on",
            file=sys.stderr,
        )
        return
    raise UserError(
        f"{trained.its} {noun} are not those it was begun on, or come in another order: {changed}; so "
        f"--split={chosen.split} is no longer what was set aside in training. Put the same {noun} back, evaluate "
        f"all of them with --split=all, or name other images with --config=FILE:NAME --config.data.folder=FOLDER"
    )


def _photographs_of(file: Weights) -> dict[str, Any] | None:
    """Reads the description of the images that the run of an exported file was begun on, if the file has it."""
    if file.photographs is None:
        return None
    found = json.loads(file.photographs)
    try:
        check_photographs(found)
    except ValueError as error:
        raise UserError(f"{file.path}: the description of its images: {error}") from None
    return found


def _data_set(config: ConfigDict) -> str:
    """Returns the name of a config's data set, or the folder of its photographs, with links resolved."""
    return os.path.realpath(expanded(config.data.folder)) if config.data.folder else config.data.name


def _view_description(view: View, net: Model, data: Data) -> str:
    """Describes the view, after a comma; empty for data that have one view only."""
    if len(data.access.views) < 2:
        return ""
    size = net.preprocessing.image_size
    corners = f"10 crops of {size} pixels in the central square of {net.preprocessing.resize}"
    seen = {"center": f"the central crop of {size} pixels", "10crop": corners}
    return ", " + seen.get(view, "fully convolutional, several scales")
