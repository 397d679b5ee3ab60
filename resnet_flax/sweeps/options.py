"""The flags that every experiment has."""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from resnet_flax.errors import UserError
from resnet_flax.paths import expanded

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
LAUNCHER = flags.DEFINE_enum(
    "launcher",
    "local",
    ["local", "ray"],
    "Where the runs run: one after the other here, or as tasks of a Ray cluster. All of its nodes must see the folder "
    "of the runs, the data, and this checkout with its environment at the same paths: on a file system they share.",
)
RAY_ADDRESS = flags.DEFINE_string(
    "ray_address", None, "HOST:PORT of the cluster; by default $RAY_ADDRESS, else one of this machine, for these runs."
)
RAY_WORKERS = flags.DEFINE_integer(
    "ray_workers", None, "Runs at a time where this machine is the cluster; by default what its cores and GPUs allow.",
    lower_bound=1,
)  # fmt: skip
GPUS_PER_RUN = flags.DEFINE_float(
    "gpus_per_run", None, "Of a node, for each run on Ray; 0.5: two share one. By default 1 where there are any.",
    lower_bound=0,
)  # fmt: skip
CPUS_PER_RUN = flags.DEFINE_float("cpus_per_run", 1, "Of a node, for each run on Ray.", lower_bound=0.01)
flags.mark_flag_as_required("workdir")


def workdir() -> Path:
    """The folder of the experiment's figures and tables."""
    return expanded(WORKDIR.value)


def runs_folder() -> Path:
    """The folder that holds a folder for each run."""
    return expanded(RUNS.value) if RUNS.value else workdir() / "runs"


def whole_numbers(flag: flags.FlagHolder) -> list[int]:
    """The values of a list flag; a mistake in it names the flag."""
    try:
        return [int(text) for text in flag.value]
    except ValueError:
        raise UserError(f"--{flag.name}={','.join(flag.value)} must be whole numbers with commas between") from None
