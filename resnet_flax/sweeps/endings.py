"""What runs end as, and what those that are there have ended as."""

from pathlib import Path

from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.run_files import RunFiles
from resnet_flax.training import workdir as folders

Ending = tuple[str, str]  # "diverged", "failed", "crashed" or empty; the reason, one line
WELL: Ending = ("", "")


def earlier_failure(config: ConfigDict, workdir: Path) -> Ending | None:
    """That of a run that diverged before: it would diverge again. One that crashed is worth another attempt."""
    files = RunFiles(workdir)
    found, there = files.diverged(), files.config()
    if found is None or there is None or configs.flatten(there) != configs.flatten(config):
        return None
    return "diverged", found["message"]


def is_finished(config: ConfigDict, workdir: Path) -> bool:
    """Whether the folder holds this very run, to its last step."""
    return folders.is_finished(workdir, config)


def first_line(error: BaseException) -> str:
    """Of what the error says; some say pages."""
    return (str(error).strip().splitlines() or [""])[0]
