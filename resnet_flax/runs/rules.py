"""Versions of the training rules. An old run that a later fix affects is not resumed, and is marked in tables.

starts.jsonl records the version that a run was begun under (:func:`rules_in`). A fix that changes the results of some
configs increments :data:`RULES` and adds a row to :data:`CHANGED`. An affected run can still be evaluated, exported and
reported.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from resnet_flax.config import in_memory
from resnet_flax.data.datasets import row

# The current version. Version 1 is that of commit 4cfe0ac and earlier ones, which recorded no version.
RULES = 4

MARK = "old rules"  # marks an affected run in tables


def _around(data: ConfigDict) -> int:
    """Returns how many pixels larger than the centre crop the resized images are."""
    return max(data.resize - data.image_size, 0)


def _left_behind(c: ConfigDict) -> bool:
    """Whether a derived value is that of the config file's default depth, batch or steps, and the run has others."""
    model, schedule, train = c.model, c.schedule, c.train
    cosine = schedule.name == "cosine"
    if c.data.name in ("cifar10", "cifar100"):
        return (
            (model.depth >= 110 and not schedule.warmup_steps)
            or (model.block == "bottleneck" and model.shortcut == "A" and model.unit != "plain")
            or (train.bn_group == 64 and train.batch_size != 128)
        )
    if c.data.name == "digits" and not cosine:
        return tuple(schedule.milestones) == (450, 675) and train.batch_size != 32
    short = c.data.name == "imagenet2012" and c.optimizer.learning_rate == 0.4 and train.batch_size != 1024
    return cosine and (short or schedule.decay_steps < train.steps)


def _resized_as_for_224(c: ConfigDict) -> bool:
    """Whether photographs are resized as for crops of 224 pixels, the config file's default, and the crops differ."""
    photographs = c.data.name in ("folder", "imagenet2012")
    return photographs and c.data.resize == 256 and c.data.image_size not in (0, 224)


def _by_name(data: ConfigDict) -> bool:
    """Whether the data set is named (not a folder of photographs) and kept in memory."""
    return not data.folder and in_memory(data)


class Change(NamedTuple):
    """A change of the training rules that affects the results of some configs.

    Attributes:
      rules: The first version with the change. Runs begun under an earlier version may be affected.
      concerns: Tells whether the change affects a resolved config.
      reason: The old rule, as a clause that follows "it was begun under an old rule: ".
      resumes: Whether an affected run can be resumed with its own config, because that config determines the result.
    """

    rules: int
    concerns: Callable[[ConfigDict], bool]
    reason: str
    resumes: bool = False


CHANGED = (
    Change(
        2,
        lambda c: c.optimizer.ema > 0,
        "its average of the parameters (optimizer.ema) was mostly the initial ones in a short run, and random ones "
        "where init.weights was set",
    ),
    Change(
        2,
        lambda c: c.optimizer.name == "lars",
        "its LARS (optimizer.name) scaled all units of a stage but the first together, as if they were one layer",
    ),
    Change(
        2,
        lambda c: bool(c.data.folder) and in_memory(c.data) and _around(c.data) % 4 != 0,
        "its photographs were cropped up to a pixel off the centre (data.resize minus data.image_size is no multiple "
        "of 4)",
    ),
    Change(
        2,
        lambda c: _by_name(c.data) and c.data.resize > 0,
        "its images were resized to data.image_size, and data.resize was ignored",
    ),
    Change(
        2,
        lambda c: _by_name(c.data) and c.data.resize == 0 < c.data.image_size and row(c.data.name).side is None,
        "its images, if not square, were squashed into a square (data.image_size)",
    ),
    Change(
        3,
        _left_behind,
        "its schedule, shortcut or bn_group is what its config file has for another depth, batch or number of steps",
        resumes=True,
    ),
    Change(
        4,
        _resized_as_for_224,
        "its photographs were resized to the 256 pixels that its config file has for crops of 224 (data.image_size)",
        resumes=True,
    ),
)


def rules_in(starts: Sequence[Mapping[str, Any]]) -> int:
    """Returns the version of the rules that a run was begun under; 1 if none is recorded.

    Args:
      starts: The lines of the run's starts.jsonl.
    """
    rules = starts[-1].get("rules", 1) if starts else 1
    return rules if type(rules) is int else 1


def old_rules(config: ConfigDict, rules: int) -> list[str]:
    """Lists the reasons why a run would give other results today; empty if it would not.

    Args:
      config: The run's resolved config.
      rules: The version that the run was begun under, from :func:`rules_in`.
    """
    return [change.reason for change in CHANGED if rules < change.rules and change.concerns(config)]


def refusals(config: ConfigDict, rules: int) -> list[str]:
    """Lists the reasons why a run cannot be resumed; empty if it can. See :func:`old_rules` for the arguments."""
    return [c.reason for c in CHANGED if rules < c.rules and c.concerns(config) and not c.resumes]
