"""The endings of runs: success, or a kind of failure with its reason."""

from pathlib import Path

from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.runs.directory import RunDirectory

Ending = tuple[str, str]  # ("diverged", "failed", "crashed" or "" for success; the reason in one line)
SUCCESS: Ending = ("", "")


def earlier_failure(config: ConfigDict, workdir: Path) -> Ending | None:
    """Returns the ending of a run that diverged before and would diverge again, or None if the run is worth starting.

    A run that crashed is worth another attempt. A finished run has not failed, whatever an earlier version left there.
    """
    directory = RunDirectory(workdir)
    found, there = directory.diverged(), directory.config()
    if found is None or there is None or configs.differences(there, config) or there.train.steps != config.train.steps:
        return None
    return None if directory.is_finished(config) else ("diverged", found["message"])
