"""The config of an earlier run, from the config.json in its folder:

python train.py --config=configs/from_json.py:runs/r56/config.json --workdir=runs/r56-again
"""

from pathlib import Path

from ml_collections import ConfigDict

from resnet_flax import schemas
from resnet_flax.errors import UserError
from resnet_flax.run_files import RunFiles


def get_config(path: str = "") -> ConfigDict:
    """``path`` of a config.json."""
    if not Path(path).is_file():
        raise UserError(f"configs/from_json.py:{path}: there is no such file; name a run's config.json after the colon")
    return schemas.read_config(RunFiles(Path(path).parent).content(Path(path).name), Path(path))
