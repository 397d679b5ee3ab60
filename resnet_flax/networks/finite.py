"""Finds layers with NaN or infinite weights, with which no loss or probability means anything."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from resnet_flax.networks.stages import is_stacked

_NAMED = 3  # at most this many arrays are named


def non_finite_layers(variables: Mapping[str, Any]) -> str:
    """Names the layers whose variables contain numbers that are not finite.

    Args:
      variables: ``params`` and ``batch_stats``, with arrays of NumPy or JAX.

    Returns:
      A text such as ``"stage2.3.conv1 kernel (1 of 2304 numbers)"`` (unit 3 of stage 2); empty if all are finite.
    """
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        bad = ~np.isfinite(np.asarray(jax.device_get(leaf)))
        if not bad.any():
            continue
        _, *layers, name = (key.key for key in path)
        for i, unit in enumerate(bad, start=2) if is_stacked(path) else [(1, bad)]:
            if unit.any():
                places = {"first": "1", "rest": str(i)}
                layer = ".".join(places.get(part, part) for part in layers)
                found.append(f"{layer} {name} ({unit.sum()} of {unit.size} numbers)")
    found.sort(key=lambda text: not text.startswith(("stem", "stage")))  # in the network's order: the head comes last
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return ", ".join(found[:_NAMED]) + more
