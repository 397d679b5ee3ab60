"""Finds layers with NaN or infinite weights, with which no loss or probability means anything."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from resnet_flax.networks.layer_names import named_leaves

_NAMED = 3  # at most this many arrays are named


def non_finite_layers(variables: Mapping[str, Any]) -> str:
    """Names the layers whose variables contain numbers that are not finite.

    Args:
      variables: ``params`` and ``batch_stats``, with arrays of NumPy or JAX.

    Returns:
      A text such as ``"stage2.3.conv1 kernel (1 of 2304 numbers)"`` (unit 3 of stage 2); empty if all are finite.
    """
    found = []
    for name, leaf in named_leaves(*variables.values()):
        bad = ~np.isfinite(np.asarray(jax.device_get(leaf)))
        if bad.any():
            layer, _, last = name.rpartition(".")
            found.append(f"{layer} {last} ({bad.sum()} of {bad.size} numbers)")
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return ", ".join(found[:_NAMED]) + more
