"""What a network is: pure Flax Linen; knows no data and no optimizer."""

from resnet_flax.networks.families import Network, build, depth_of, units_of

__all__ = ["Network", "build", "depth_of", "units_of"]
