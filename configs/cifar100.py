"""CIFAR-100 with the paper's recipe for CIFAR-10. The paper has no results on CIFAR-100.

python train.py --config=configs/cifar100.py:residual-110 --workdir=runs/cifar100-residual-110

The data set is downloaded at the first start, unless data.data_dir (or TFDS_DATA_DIR) holds it, prepared by TFDS or as
its authors' archive.
"""

from ml_collections import ConfigDict

from resnet_flax import config


def get_config(name: str = "residual-20") -> ConfigDict:
    """Takes ``UNIT-DEPTH`` (6n+2), ``UNIT-bottleneck-DEPTH`` (9n+2) or ``vgg-DEPTH`` (11, 13, 16, 19)."""
    c = config.load("cifar10", name)
    c.data.name = "cifar100"
    return c
