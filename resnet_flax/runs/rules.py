"""Old runs whose kind trains by other rules today: they are refused on resume, and marked in tables.

A run records in starts.jsonl the rules under which it was begun (:func:`rules_in`). A fix that changes what a run means
adds a row to :data:`CHANGED`. Such an old run can still be evaluated, exported and reported.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from resnet_flax.config import in_memory
from resnet_flax.data.datasets import row

# How runs are trained, as far as it matters to their results. 1: commit 4cfe0ac and before, which recorded no rules.
RULES = 3

MARK = "old rules"  # of such a run in tables


def _around(data: ConfigDict) -> int:
    """Pixels of the squares around their central crop."""
    return max(data.resize - data.image_size, 0)


def _left_behind(c: ConfigDict) -> bool:
    """Whether a value is what a config file derived for its own depth, batch or steps, and the run has others."""
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


def _by_name(data: ConfigDict) -> bool:
    """Whether the data are kept in memory, and no folder of photographs."""
    return not data.folder and in_memory(data)


class Change(NamedTuple):
    """Runs begun before a change that trained by another rule.

    Attributes:
      rules: the first rules that have the change; runs begun under earlier ones are of the old kind.
      concerns: whether a run of this resolved config is of the kind that changed.
      reason: what the old rule was, a clause that follows "it was begun under an old rule: ".
      resumes: whether such a run resumes nevertheless, where the config given is its own: that one says all of it.
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
        "its LARS (optimizer.name) scaled the units behind the first of a stage together, as if they were one layer",
    ),
    Change(
        2,
        lambda c: bool(c.data.folder) and in_memory(c.data) and _around(c.data) % 4 != 0,
        "its photographs were cropped up to a pixel beside the centre (data.resize less data.image_size is no multiple "
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
        "its images, if they are no squares, were squashed into one (data.image_size)",
    ),
    Change(
        3,
        _left_behind,
        "its schedule, shortcut or bn_group is what its config file has for another depth, batch or number of steps",
        resumes=True,
    ),
)


def rules_in(starts: Sequence[Mapping[str, Any]]) -> int:
    """The rules under which a run with these lines of starts.jsonl was begun: 1 where none are recorded."""
    rules = starts[-1].get("rules", 1) if starts else 1
    return rules if type(rules) is int else 1


def old_rules(config: ConfigDict, rules: int) -> list[str]:
    """The reasons why a run of this config, begun under those rules, would train otherwise today; [] if it would not.

    Args:
      rules: of :func:`rules_in`.
    """
    return [change.reason for change in CHANGED if rules < change.rules and change.concerns(config)]


def refusals(config: ConfigDict, rules: int) -> list[str]:
    """The reasons why such a run cannot be resumed; [] if it can."""
    return [c.reason for c in CHANGED if rules < c.rules and c.concerns(config) and not c.resumes]
