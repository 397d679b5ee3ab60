"""The optimizer that a config names, made of optax's parts."""

from collections.abc import Mapping
from typing import Any

import jax
import optax


def build(optimizer: Mapping[str, Any], rate: optax.Schedule) -> optax.GradientTransformation:
    """SGD with momentum and coupled weight decay (the paper's), or AdamW; of all parameters, or of the head alone.

    Coupled decay is L2 regularisation: ``weight_decay * w`` is added to the gradient before the momentum.
    ``decay`` says which parameters decay: ``all`` (as in the framework of the paper, which does not say), or only
    the ``kernels`` of convolutions and of the dense layer.

    ``momentum_form`` says what the momentum is of. ``gradient``: ``v = m v + g; w -= rate v``, as in PyTorch and optax.
    ``update``: ``v = m v + rate g; w -= v``, as in Caffe, the framework of the paper. They differ where the rate
    changes: after a drop to a tenth, ``update`` goes on for some steps with what the large rate gathered.

    ``trainable`` is ``all``, or ``head``: the dense layers; the other parameters get no momentum and no decay.

    Args:
      optimizer: the section of a config.
      rate: step -> learning rate.
    """
    if optimizer["trainable"] == "head":
        return optax.multi_transform({"head": _of_all(optimizer, rate), "frozen": optax.set_to_zero()}, _labels)
    return _of_all(optimizer, rate)


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
