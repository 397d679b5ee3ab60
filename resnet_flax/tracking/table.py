"""The table of trackers, the flag that chooses among them, and the function that starts them."""

import difflib
import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags
from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.errors import UserError
from resnet_flax.tracking.background import BackgroundTracker
from resnet_flax.tracking.tracker import Line, TrackedRun, Tracking


class Kind(NamedTuple):
    """A kind of tracker.

    Attributes:
      title: The title in messages.
      module: The module with the function ``open``. It returns a :class:`~.tracker.Tracker` for a
        :class:`~.tracker.TrackedRun`, or None if the run has ended and the tracker has all of its lines.
      package: The package that the module imports.
      install: The arguments of ``pip install`` for the package.
    """

    title: str
    module: str
    package: str
    install: str


TRACKERS = {
    "tensorboard": Kind("TensorBoard", "resnet_flax.tracking.tensorboard", "tensorboardX", "-r requirements.txt"),
    "trackio": Kind("Trackio", "resnet_flax.tracking.trackio", "trackio", "'.[track]'"),
    "wandb": Kind("Weights & Biases", "resnet_flax.tracking.wandb", "wandb", "'.[wandb]'"),
}


def define_flag(values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines ``--tracker``."""
    flags.DEFINE_list(
        "tracker",
        ["tensorboard"],
        f"Trackers that show metrics during training, in addition to metrics.jsonl, separated by commas: "
        f"{', '.join(TRACKERS)}, or none.",
        flag_values=values,
    )


def requested_trackers(values: flags.FlagValues = flags.FLAGS) -> tuple[str, ...]:
    """Returns the trackers that ``--tracker`` names.

    Raises:
      UserError: A tracker is unknown, or its package is not installed.
    """
    return chosen(values.tracker)


def chosen(given: str | Sequence[str]) -> tuple[str, ...]:
    """Returns the names of trackers without repetitions; ``none`` alone gives no names.

    Args:
      given: The names, or a text with commas.

    Raises:
      UserError: A tracker is unknown, or its package is not installed.
    """
    names = tuple(dict.fromkeys(name for name in (given.split(",") if isinstance(given, str) else given) if name))
    names = () if names == ("none",) else names
    check(names)
    return names


def check(names: Sequence[str]) -> None:
    """Checks that trackers are known and their packages installed.

    Raises:
      UserError: A tracker is unknown, or its package is not installed. The message suggests names or the pip command.
    """
    for name in names:
        if name not in TRACKERS:
            near = difflib.get_close_matches(name, TRACKERS, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(TRACKERS)}, none"
            raise UserError(f"--tracker={','.join(names)}: {name!r} is not known; {hint}")
        kind = TRACKERS[name]
        if importlib.util.find_spec(kind.package) is None:
            raise UserError(
                f"--tracker={','.join(names)}: the package {kind.package} is not installed; pip install "
                f"{kind.install}, or leave {name} out"
            )


def start(
    tracking: Tracking, path: Path, config: ConfigDict | None, lines: Sequence[Line], ended: bool = False
) -> list[BackgroundTracker]:
    """Starts the trackers of a run, each in a thread of its own.

    Args:
      tracking: The trackers, and the run's name.
      path: The run directory.
      config: The config of the run, or None if unknown.
      lines: The lines of metrics up to the step that the run resumes from.
      ended: True if no line will follow.
    """
    flat: Mapping = configs.flatten(config) if config else {}
    network = f"{configs.name_of(config.model)} on {config.data.name}, " if config else ""
    run = TrackedRun(path, tracking.name or f"{network}{path}", tracking.group, flat, tuple(lines), ended)
    return [BackgroundTracker(TRACKERS[name].title, TRACKERS[name].module, run) for name in tracking.trackers]
