"""Lists values of a network's layers in the order in which images pass through the layers."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax import Array

from resnet_flax.networks.layer_names import named_leaves
from resnet_flax.networks.stages import is_stacked


def reduce_layers(tree: Any, reduction: Callable[[Array], Array]) -> Any:
    """Reduces each array of a tree to a number; a stacked array of scanned units, [units, ...], to one per unit."""

    def one(path: tuple, leaf: Array) -> Array:
        return jax.vmap(reduction)(leaf) if is_stacked(path) else reduction(leaf)

    return jax.tree_util.tree_map_with_path(one, tree)


def layers_in_order(tree: Mapping[str, Any], leaf: str, layers: str = r"[^.]+") -> list[tuple[str, Any]]:
    """Lists the layers that have a leaf of the given name, and their leaves, in the network's order.

    Args:
      tree: A collection of variables: ``{"stem_conv": {leaf: x}, "stage1": {"first": ..., "rest": ...}, ...}``. Leaves
        under ``rest`` are stacked along a leading axis of units; each unit gets its own slice.
      leaf: The leaf's name, such as ``"kernel"``.
      layers: A regular expression for the names of layers (such as ``conv1``) that are listed; it matches whole names.

    Returns:
      ``[("stem_conv", x), ("stage1.1.conv1", x), ("stage1.2.conv1", x), ...]``.
    """
    pattern = re.compile(rf"((?:stage\d+\.\d+\.)?(?:{layers}))\.{leaf}")
    return [(match[1], value) for name, value in named_leaves(tree) if (match := pattern.fullmatch(name))]
