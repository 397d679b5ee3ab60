"""The endings of runs, and those of runs that are there."""

from pathlib import Path

from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.runs.directory import RunDirectory

Ending = tuple[str, str]  # "diverged", "failed", "crashed" or empty; the reason, one line
SUCCESS: Ending = ("", "")


def earlier_failure(config: ConfigDict, workdir: Path) -> Ending | None:
    """Returns how a run failed that would fail again: one that diverged. One that crashed is worth another attempt."""
    directory = RunDirectory(workdir)
    found, there = directory.diverged(), directory.config()
    if found is None or there is None or configs.differences(there, config) or there.train.steps != config.train.steps:
        return None
    return "diverged", found["message"]


def first_line(error: BaseException) -> str:
    """Returns the first line of what an error says; some say pages."""
    return (str(error).strip().splitlines() or [""])[0]
