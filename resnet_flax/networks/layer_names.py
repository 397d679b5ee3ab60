"""Names the variables of a network by layer, such as ``stage1.2.conv1.kernel``, in the network's order."""

import re
from typing import Any

import jax
import numpy as np

from resnet_flax.networks.stages import is_stacked


def named_leaves(*trees: Any) -> list[tuple[str, Any]]:
    """Lists the leaves of trees of variables by name, in the network's order; each scanned unit has its own slice.

    Returns:
      ``[("stem_conv.kernel", x), ("stage1.1.conv1.kernel", x), ("stage1.2.conv1.kernel", x), ...]``.
    """
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(trees):
        for unit, value in enumerate(np.atleast_1d(leaf) if is_stacked(path) else [leaf], start=2):
            places = {"first": "1", "rest": str(unit)}
            found.append((".".join(places.get(key.key, key.key) for key in path[1:]), value))
    return sorted(found, key=lambda item: _place(item[0]))


def _place(name: str) -> tuple:
    """Returns the sort key of a name: the stem first, then stages and units by number, then the head."""
    group = next((i for i, begin in enumerate(("stem", "stage")) if name.startswith(begin)), 2)
    parts = [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
    return group, name.startswith("dense"), name.startswith("hidden"), parts
