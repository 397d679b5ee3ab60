"""The thin, deep networks of "Training Very Deep Networks" (arXiv:1507.06228) on CIFAR-10, and their twins.

python train.py --config=configs/highway.py:highway-19 --workdir=runs/highway-19

highway-19 has 2.3M parameters and highway-32 1.25M; plain-19 and residual-19 (and 32) have the same layers and widths
without gates. resnet_flax/networks/families.py says what the source gives of them, and what was chosen here. The bias
of the gates at the start is -2 for 19 and -3 for 32 layers: model.gate_bias.

The source has no BN: --config.model.norm=none, for which the learning rate has to be smaller. Training is by the recipe
of configs/cifar10.py, so that these networks compare with residual ones, not by the source's own.

Test error in the source: highway-19 7.54 (7.72 +- 0.16), highway-32 8.80.
"""

from ml_collections import ConfigDict

from resnet_flax import config


def get_config(name: str = "highway-19") -> ConfigDict:
    """``UNIT-19`` or ``UNIT-32``."""
    c = config.load("cifar10")
    c.model.family = "highway"
    return config.apply_name(c, name)
