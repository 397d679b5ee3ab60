"""The optimizer that a config names, made of optax's parts."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


def build(optimizer: Mapping[str, Any], rate: optax.Schedule) -> optax.GradientTransformation:
    """SGD with momentum and coupled weight decay (the paper's), AdamW or LARS; of all parameters, or of the head.

    Coupled decay is L2 regularisation: ``weight_decay * w`` is added to the gradient before the momentum.
    ``decay`` says which parameters decay: ``all`` (as in the framework of the paper, which does not say), or only
    the ``kernels`` of convolutions and of the dense layer.

    ``momentum_form`` says what the momentum is of. ``gradient``: ``v = m v + g; w -= rate v``, as in PyTorch and optax.
    ``update``: ``v = m v + rate g; w -= v``, as in Caffe, the framework of the paper. They differ where the rate
    changes: after a drop to a tenth, ``update`` goes on for some steps with what the large rate gathered.

    LARS (arXiv:1708.03888) scales the update of each kernel by its norm; other parameters take the rate as it is.
    ``ema``: an exponential moving average of the parameters is kept, to be evaluated in their place.

    ``trainable`` is ``all``, or ``head``: the dense layers; the other parameters get no momentum and no decay.

    Args:
      optimizer: the section of a config.
      rate: step -> learning rate.
    """
    built = _of_all(optimizer, rate)
    if optimizer["trainable"] == "head":
        built = optax.multi_transform({"head": built, "frozen": optax.set_to_zero()}, _labels)
    return optax.chain(built, average_of_parameters(optimizer["ema"])) if optimizer["ema"] else built


class Average(NamedTuple):
    """State of :func:`average_of_parameters`."""

    average: Any


def average_of_parameters(decay: float) -> optax.GradientTransformation:
    """Keeps ``average = decay * average + (1 - decay) * params``, after each update; the last part of a chain.

    It starts from the parameters as they are, so that nothing has to be corrected for the first steps.
    """

    def init(params: Any) -> Average:
        return Average(jax.tree.map(jnp.array, params))

    def update(updates: Any, state: Average, params: Any) -> tuple[Any, Average]:
        new = optax.apply_updates(params, updates)
        return updates, Average(optax.incremental_update(new, state.average, 1 - decay))

    return optax.GradientTransformation(init, update)


def evaluated(params: Any, opt_state: Any) -> Any:
    """The parameters that are evaluated: their average where the optimizer keeps one, else themselves."""
    return optax.tree.get(opt_state, "average", params)


def _of_all(optimizer: Mapping[str, Any], rate: optax.Schedule) -> optax.GradientTransformation:
    mask = _is_kernel if optimizer["decay"] == "kernels" else None
    if optimizer["name"] == "adamw":
        return optax.adamw(
            rate,
            b1=optimizer["beta1"],
            b2=optimizer["beta2"],
            eps=optimizer["epsilon"],
            weight_decay=optimizer["weight_decay"],
            mask=mask,
        )
    if optimizer["name"] == "lars":
        return optax.lars(
            rate,
            weight_decay=optimizer["weight_decay"],
            weight_decay_mask=True if mask is None else mask,
            trust_coefficient=optimizer["trust_coefficient"],
            trust_ratio_mask=_is_kernel,
            momentum=optimizer["momentum"],
            nesterov=optimizer["nesterov"],
        )
    decay = optax.add_decayed_weights(optimizer["weight_decay"], mask)
    momentum, scale = optimizer["momentum"], optax.scale_by_learning_rate(rate)
    if optimizer["momentum_form"] == "update":
        return optax.chain(decay, scale, optax.trace(momentum, optimizer["nesterov"]))
    return optax.chain(decay, optax.sgd(rate, momentum=momentum, nesterov=optimizer["nesterov"]))


def _is_kernel(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def _labels(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "head" if path[0].key.startswith(("dense", "hidden")) else "frozen", params
    )
