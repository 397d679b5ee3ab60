"""Networks in pure Flax Linen, which know no data and no optimizer."""

from resnet_flax.networks.families import build, depth_of, units_of
from resnet_flax.networks.network import Network, on_one_device

__all__ = ["Network", "build", "depth_of", "on_one_device", "units_of"]
