"""The flags that every experiment has."""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from resnet_flax.errors import UserError

# By the name of the command: ml_collections lets no one change the default later.
_DEFAULT_CONFIG = "configs/cifar10.py" if Path(sys.argv[0]).stem == "cifar10" else "configs/digits.py"

CONFIG = config_flags.DEFINE_config_file(
    "config", _DEFAULT_CONFIG, "Config file; networks come from the experiment. Overrides hold for every run."
)
SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds; figures and tables show their mean and standard deviation.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the experiment's figures and tables.")
RUNS = flags.DEFINE_string(
    "runs", None, "Folder of the runs, by default runs/ in the workdir; experiments that name the same one share runs."
)
DRY_RUN = flags.DEFINE_bool("dry-run", False, "Print the runs and stop.")
flags.mark_flag_as_required("workdir")


def workdir() -> Path:
    """The folder of the experiment's figures and tables."""
    return Path(WORKDIR.value)


def runs_folder() -> Path:
    """The folder that holds a folder for each run."""
    return Path(RUNS.value) if RUNS.value else workdir() / "runs"


def whole_numbers(flag: flags.FlagHolder) -> list[int]:
    """The values of a list flag; a mistake in it names the flag."""
    try:
        return [int(text) for text in flag.value]
    except ValueError:
        raise UserError(f"--{flag.name}={','.join(flag.value)} must be whole numbers with commas between") from None
