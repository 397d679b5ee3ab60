"""The config of an earlier run, from the config.json in its run directory.

python train.py --config=configs/from_json.py:runs/r56/config.json --workdir=runs/r56-again

Two values are derived again if you set the keys that they depend on: the steps of a cosine schedule, and the initial
bias of highway gates.
"""

from ml_collections import ConfigDict

from resnet_flax import config
from resnet_flax.errors import UserError
from resnet_flax.paths import expanded
from resnet_flax.runs import schemas
from resnet_flax.runs.files import CheckedFiles


def get_config(path: str = "") -> ConfigDict:
    """Takes the path of a config.json."""
    file = expanded(path)
    if not path or not file.is_file():
        raise UserError(f"configs/from_json.py:{path}: there is no such file; name a run's config.json after the colon")
    return config.unresolved(schemas.read_config(CheckedFiles(file.parent).content(file.name), file))
