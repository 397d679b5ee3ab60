"""Trees of arrays by the names of their leaves: what a checkpoint holds, beside what is wanted of it."""

from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp


def shapes(tree: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape of every array, by name; of arrays, or of what orbax says of them."""
    return {name: (str(leaf.dtype), tuple(leaf.shape)) for name, leaf in names(tree).items()}


def names(tree: Any) -> dict[str, Any]:
    """Leaves by name, such as ``params/dense/kernel``: the same for a tree and for what orbax says of it."""
    return {name_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def name_of(path: tuple[Any, ...]) -> str:
    """The name of the leaf at a path of :mod:`jax.tree_util`."""
    return "/".join(map(_text, path))


def nonempty_items(items: Mapping[str, Any]) -> set[str]:
    """The names of the items that hold arrays."""
    return {name for name, item in items.items() if jax.tree.leaves(item)}


def shared_arrays(there: Any, like: Any) -> Any:
    """The arrays of a saved item that ``like`` has, too, with the same shape and dtype; placeholders for the others."""
    wanted = names(like)

    def leaf(path: Any, saved: Any) -> Any:
        found = wanted.get(name_of(path))
        same = found is not None and (found.shape, found.dtype) == (tuple(saved.shape), saved.dtype)
        return found if same else ocp.PLACEHOLDER

    return jax.tree_util.tree_map_with_path(leaf, there)


def fill_template(like: Any, found: Any) -> Any:
    """The arrays of an item that were read, in the tree of ``like``; None for those that were not."""
    read = {name: leaf for name, leaf in names(found).items() if leaf is not ocp.PLACEHOLDER}
    return jax.tree_util.tree_map_with_path(lambda path, _: read.get(name_of(path)), like)


def _text(part: Any) -> str:
    return str(next(getattr(part, name) for name in ("key", "name", "idx") if hasattr(part, name)))
