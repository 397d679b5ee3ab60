"""Compares trees of arrays by the names of their leaves, such as a checkpoint's items with the wanted ones."""

from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp


def shapes(tree: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Returns dtype and shape of every array by name, for a tree of arrays or of orbax's descriptions of them."""
    return {name: (str(leaf.dtype), tuple(leaf.shape)) for name, leaf in names(tree).items()}


def names(tree: Any) -> dict[str, Any]:
    """Returns the leaves by name, such as ``params/dense/kernel``; orbax's description of a tree has the same names."""
    return {name_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def name_of(path: tuple[Any, ...]) -> str:
    """Formats a path of :mod:`jax.tree_util` as a name."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def nonempty_items(items: Mapping[str, Any]) -> set[str]:
    """Returns the names of the items that hold at least one array."""
    return {name for name, item in items.items() if jax.tree.leaves(item)}


def shared_arrays(there: Any, like: Any) -> Any:
    """Selects the arrays of a saved item that ``like`` has with the same shape and dtype.

    Returns:
      The item with the arrays of ``like``, and orbax's placeholders for the other arrays.
    """
    wanted = names(like)

    def leaf(path: Any, saved: Any) -> Any:
        found = wanted.get(name_of(path))
        same = found is not None and (found.shape, found.dtype) == (tuple(saved.shape), saved.dtype)
        return found if same else ocp.PLACEHOLDER

    return jax.tree_util.tree_map_with_path(leaf, there)


def fill_template(like: Any, found: Any) -> Any:
    """Arranges the arrays that were read as the tree ``like``, with None for arrays that were not read."""
    read = {name: leaf for name, leaf in names(found).items() if leaf is not ocp.PLACEHOLDER}
    return jax.tree_util.tree_map_with_path(lambda path, _: read.get(name_of(path)), like)
