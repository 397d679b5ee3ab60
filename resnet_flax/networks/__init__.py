"""Networks in pure Flax Linen, independent of data sets and optimizers."""

from resnet_flax.networks.families import build, depth_of, units_of
from resnet_flax.networks.network import Network, on_one_device

__all__ = ["Network", "build", "depth_of", "on_one_device", "units_of"]
