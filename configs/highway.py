"""The thin, deep networks of "Training Very Deep Networks" (arXiv:1507.06228) on CIFAR-10, with and without gates.

python train.py --config=configs/highway.py:highway-19 --workdir=runs/highway-19

highway-19 has 2.3M parameters and highway-32 has 1.25M. plain-19, residual-19, plain-32 and residual-32 have the same
layers and widths without gates. resnet_flax/networks/families.py explains which details come from that paper, and which
were chosen here. The initial bias of the gates (model.gate_bias) is -2 for 19 and -3 for 32 layers.

That paper has no BN; --config.model.norm=none trains without it, but needs a smaller learning rate. The recipe is that
of configs/cifar10.py instead of that paper's, so that these networks can be compared with residual ones.

Test errors in that paper: highway-19 7.54 (7.72 +- 0.16) percent, highway-32 8.80 percent.
"""

from ml_collections import ConfigDict

from resnet_flax import config


def get_config(name: str = "highway-19") -> ConfigDict:
    """Takes ``UNIT-19`` or ``UNIT-32``."""
    c = config.load("cifar10")
    c.model.family = "highway"
    return config.apply_name(c, name)
