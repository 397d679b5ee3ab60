"""What a network is: pure Flax Linen; knows no data and no optimizer."""

from resnet_flax.networks.families import build, depth_of, units_of
from resnet_flax.networks.network import Network

__all__ = ["Network", "build", "depth_of", "units_of"]
