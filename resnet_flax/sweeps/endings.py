"""What runs end as, and what those that are there have ended as."""

from pathlib import Path

from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.runs.directory import RunDirectory

Ending = tuple[str, str]  # "diverged", "failed", "crashed" or empty; the reason, one line
WELL: Ending = ("", "")


def earlier_failure(config: ConfigDict, workdir: Path) -> Ending | None:
    """That of a run that diverged before: it would diverge again. One that crashed is worth another attempt."""
    directory = RunDirectory(workdir)
    found, there = directory.diverged(), directory.config()
    if found is None or there is None or configs.differences(there, config) or there.train.steps != config.train.steps:
        return None
    return "diverged", found["message"]


def first_line(error: BaseException) -> str:
    """Of what the error says; some say pages."""
    return (str(error).strip().splitlines() or [""])[0]
