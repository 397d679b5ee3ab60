"""Prints docs/config.md: python -m resnet_flax.config > docs/config.md"""

from resnet_flax.config.page import page

print(page(), end="")
