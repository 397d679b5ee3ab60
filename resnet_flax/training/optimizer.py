"""Builds the optimizer that a config names from optax's transformations.

To add an optimizer, write a function and add it to :data:`OPTIMIZERS`. If it needs a config key of its own, add a row
to config/table.py.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from resnet_flax.networks.stages import is_stacked
from resnet_flax.registry import Registry

Mask = Callable[[Any], Any] | None  # parameters -> tree of booleans; None selects all


def build(optimizer: Mapping[str, Any], rate: optax.Schedule) -> optax.GradientTransformation:
    """Builds SGD with momentum and coupled weight decay (as in the paper), AdamW or LARS.

    Coupled decay is L2 regularisation: ``weight_decay * w`` is added to the gradient before the momentum.
    ``decay`` selects the parameters that decay: ``all``, or only the ``kernels`` of convolutions and of the dense
    layer. The paper does not say; its framework decays ``all``.

    ``momentum_form`` selects the quantity that is accumulated. ``gradient``: ``v = m v + g; w -= rate v``, as in
    PyTorch and optax. ``update``: ``v = m v + rate g; w -= v``, as in Caffe, the framework of the paper. They differ
    after a change of the rate: with ``update``, updates made at the old rate persist in the momentum for some steps.

    LARS (arXiv:1708.03888) scales the update of each kernel by the kernel's norm; other parameters use the plain rate.
    The kernels of a scanned stage are stacked in one array, but each unit's slice is scaled on its own.

    ``trainable`` is ``all``, or ``head`` for the dense layers alone; the other parameters then stay as they are.

    Args:
      optimizer: The section of a config; its numbers may be traced arrays.
      rate: The schedule, step -> learning rate.
    """
    built = OPTIMIZERS[optimizer["name"]](optimizer, rate, _is_kernel if optimizer["decay"] == "kernels" else None)
    if optimizer["trainable"] == "head":
        built = optax.multi_transform({"head": built, "frozen": optax.set_to_zero()}, _labels)
    return built


def moving_average(average: Any, params: Any, step: Array, decay: ArrayLike) -> Any:
    """Updates the exponential moving average of the parameters (``optimizer.ema``) after a step.

    ``average = d average + (1 - d) params``, where the decay grows to its final value: ``d = min(decay, (1 + t) / (10 +
    t))``. With a constant decay of 0.999 the average of a run of 400 steps would be mostly the initial parameters.

    BN's running statistics are not averaged: evaluating the average uses the running statistics of training, which are
    a moving average over the last batches. ``evaluate --reestimate_bn`` computes statistics for the averaged
    parameters.

    Args:
      average: The average before the step; at first the initial parameters.
      params: The parameters after the step.
      step: The number of steps taken before this one, t.
      decay: The final decay, in (0, 1).
    """

    def one(average: Array, param: Array) -> Array:
        t = step.astype(average.dtype)
        # In this form the average of a frozen parameter stays exactly equal to it.
        return average + (1 - jnp.minimum(decay, (1 + t) / (10 + t))) * (param - average)

    return jax.tree.map(one, average, params)


def _sgd(optimizer: Mapping[str, Any], rate: optax.Schedule, decays: Mask) -> optax.GradientTransformation:
    decay = optax.add_decayed_weights(optimizer["weight_decay"], decays)
    momentum, scale = optimizer["momentum"], optax.scale_by_learning_rate(rate)
    if optimizer["momentum_form"] == "update":
        return optax.chain(decay, scale, optax.trace(momentum, optimizer["nesterov"]))
    return optax.chain(decay, optax.sgd(rate, momentum=momentum, nesterov=optimizer["nesterov"]))


def _adamw(optimizer: Mapping[str, Any], rate: optax.Schedule, decays: Mask) -> optax.GradientTransformation:
    moments = {"b1": optimizer["beta1"], "b2": optimizer["beta2"], "eps": optimizer["epsilon"]}
    return optax.adamw(rate, **moments, weight_decay=optimizer["weight_decay"], mask=decays)


def _lars(optimizer: Mapping[str, Any], rate: optax.Schedule, decays: Mask) -> optax.GradientTransformation:
    scale = optax.scale_by_trust_ratio(trust_coefficient=optimizer["trust_coefficient"])
    return optax.chain(
        optax.add_decayed_weights(optimizer["weight_decay"], decays),
        optax.masked(_layer_by_layer(scale), _is_kernel),
        optax.scale_by_learning_rate(rate),
        optax.trace(optimizer["momentum"], optimizer["nesterov"]),
    )


# `optimizer.name` in a config -> function of that section, the schedule, and the mask of parameters that decay.
OPTIMIZERS: Registry[Callable[[Mapping[str, Any], optax.Schedule, Mask], optax.GradientTransformation]] = Registry(
    "optimizer", {"sgd": _sgd, "adamw": _adamw, "lars": _lars}
)


def _layer_by_layer(scale: optax.GradientTransformation) -> optax.GradientTransformation:
    """Applies a stateless transformation to each array, or to each unit's slice of a stacked array."""

    def update(updates: Any, state: Any, params: Any) -> tuple[Any, Any]:
        def of_layer(gradient: Array, param: Array) -> Array:
            return scale.update(gradient, state, param)[0]

        def one(path: tuple, gradient: Array, param: Array) -> Array:
            return (jax.vmap(of_layer) if is_stacked(path) else of_layer)(gradient, param)

        return jax.tree_util.tree_map_with_path(one, updates, params), state

    return optax.GradientTransformation(scale.init, update)


def _is_kernel(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def _labels(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "head" if path[0].key.startswith(("dense", "hidden")) else "frozen", params
    )
