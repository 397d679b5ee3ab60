"""Lists values of a network's layers in the order in which images pass through the layers."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax import Array

from resnet_flax.networks.stages import is_stacked


def reduce_layers(tree: Any, reduction: Callable[[Array], Array]) -> Any:
    """Reduces each array of a tree to a number; a stacked array of scanned units, [units, ...], to one per unit."""

    def one(path: tuple, leaf: Array) -> Array:
        return jax.vmap(reduction)(leaf) if is_stacked(path) else reduction(leaf)

    return jax.tree_util.tree_map_with_path(one, tree)


def layers_in_order(tree: Mapping[str, Any], leaf: str, layers: str = ".*") -> list[tuple[str, Any]]:
    """Lists the layers that have a leaf of the given name, and their leaves, in the network's order.

    Args:
      tree: A collection of variables: ``{"stem_conv": {leaf: x}, "stage1": {"first": ..., "rest": ...}, ...}``. Leaves
        under ``rest`` are stacked along a leading axis of units; each unit gets its own slice.
      leaf: The leaf's name, such as ``"kernel"``.
      layers: A regular expression for the names of layers (such as ``conv1``) that are listed; it matches whole names.

    Returns:
      ``[("stem_conv", x), ("stage1.1.conv1", x), ("stage1.2.conv1", x), ...]``.
    """
    stages = sorted((k for k in tree if re.fullmatch(r"stage\d+", k)), key=lambda k: int(k[5:]))
    before = {k: v for k, v in tree.items() if k.startswith("stem")}
    ends = sorted(
        (k for k in tree if k not in before and k not in stages), key=lambda k: (k == "dense", "hidden" in k, k)
    )
    found = _of_unit(before, leaf, layers, "")
    for stage in stages:
        found += _of_unit(tree[stage].get("first", {}), leaf, layers, f"{stage}.1.")
        rest = tree[stage].get("rest", {})
        units = {len(x) for x in jax.tree.leaves(rest)}
        for j in range(units.pop() if units else 0):
            found += _of_unit(jax.tree.map(lambda a, j=j: a[j], rest), leaf, layers, f"{stage}.{j + 2}.")
    for name in ends:
        found += _of_unit({name: tree[name]}, leaf, layers, "")
    return found


def _of_unit(unit: Mapping[str, Any], leaf: str, layers: str, prefix: str) -> list[tuple[str, Any]]:
    named = [(name, unit[name]) for name in sorted(unit) if isinstance(unit[name], Mapping)]
    return [(prefix + name, found[leaf]) for name, found in named if leaf in found and re.fullmatch(layers, name)]
