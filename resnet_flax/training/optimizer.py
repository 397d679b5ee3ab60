"""The optimizer that a config names, made of optax's parts.

To add one: write a function here, or anywhere, and name it in :data:`OPTIMIZERS`; a key of its own is a row in
config/table.py.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from resnet_flax.networks.stages import is_stacked

Mask = Callable[[Any], Any] | None  # parameters -> which of them; None for all


def build(optimizer: Mapping[str, Any], rate: optax.Schedule) -> optax.GradientTransformation:
    """SGD with momentum and coupled weight decay (the paper's), AdamW or LARS; of all parameters, or of the head.

    Coupled decay is L2 regularisation: ``weight_decay * w`` is added to the gradient before the momentum.
    ``decay`` says which parameters decay: ``all`` (as in the framework of the paper, which does not say), or only
    the ``kernels`` of convolutions and of the dense layer.

    ``momentum_form`` says what the momentum is of. ``gradient``: ``v = m v + g; w -= rate v``, as in PyTorch and optax.
    ``update``: ``v = m v + rate g; w -= v``, as in Caffe, the framework of the paper. They differ where the rate
    changes: after a drop to a tenth, ``update`` goes on for some steps with what the large rate gathered.

    LARS (arXiv:1708.03888) scales the update of each layer's kernel by its norm; other parameters take the rate as it
    is. Each unit of a scanned stage has layers of its own, although their kernels are one array.

    ``trainable`` is ``all``, or ``head``: the dense layers; the other parameters get no momentum and no decay.

    Args:
      optimizer: the section of a config; its numbers may be arrays that a compiled program is given.
      rate: step -> learning rate.
    """
    built = OPTIMIZERS[optimizer["name"]](optimizer, rate, _is_kernel if optimizer["decay"] == "kernels" else None)
    if optimizer["trainable"] == "head":
        built = optax.multi_transform({"head": built, "frozen": optax.set_to_zero()}, _labels)
    return built


def moving_average(average: Any, params: Any, step: Array, decay: ArrayLike) -> Any:
    """The exponential moving average of the parameters (``optimizer.ema``) after a step.

    ``average = d average + (1 - d) params``, where the decay grows to its final value: ``d = min(decay, (1 + t) / (10 +
    t))``. With a constant decay of 0.999 the average of a run of 400 steps would be mostly the initial parameters.

    BN's running statistics are not averaged again. An evaluation of the average uses those of the training steps, which
    are themselves a moving average over the last batches; ``evaluate --reestimate_bn`` computes the average's own.

    Args:
      average: before the step; at first the initial parameters.
      params: after the step.
      step: t, the steps taken before it.
      decay: the final decay, in (0, 1).
    """

    def one(average: Array, param: Array) -> Array:
        t = step.astype(average.dtype)
        # In this form the average of a parameter that stays as it is (a frozen one) does too.
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


# The name in a config (`optimizer.name`), and the optimizer of that section, a schedule, and which parameters decay.
OPTIMIZERS: dict[str, Callable[[Mapping[str, Any], optax.Schedule, Mask], optax.GradientTransformation]] = {
    "sgd": _sgd,
    "adamw": _adamw,
    "lars": _lars,
}


def _layer_by_layer(scale: optax.GradientTransformation) -> optax.GradientTransformation:
    """A stateless transformation of whole arrays, applied to each unit's slice where units are stacked."""

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
