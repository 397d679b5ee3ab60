"""Parameters, multiply-adds and activation memory of each stage of a network, without running or compiling it."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from resnet_flax.analysis.activations import kept_bytes
from resnet_flax.analysis.counts import multiply_adds_of_equation, shaped, variables_of
from resnet_flax.analysis.program_stages import assign_stages
from resnet_flax.networks import Network, on_one_device


@dataclasses.dataclass(frozen=True)
class StageCost:
    """The cost of one stage of a network: the stem, ``stage1``, ..., or the head, which is everything after them.

    Attributes:
      name: ``stem``, ``stage1``, ... or ``head``.
      output: Shape of the stage's output for one image: (H, W, C), or (classes,) for the head.
      units: Number of units; 0 for the stem and the head.
      parameters: Number of trained values.
      multiply_adds: Multiply-adds for classifying one image, in convolutions and matrix products.
      activation_bytes: Bytes stored for the backward pass of a batch, as ``resnet_flax/analysis/activations.py`` counts
        them.
    """

    name: str
    output: tuple[int, ...]
    units: int
    parameters: int
    multiply_adds: int
    activation_bytes: int


def stage_costs(network: Network, image_shape: tuple[int, int, int], batch: int) -> list[StageCost]:
    """Returns the cost of each stage of a network, in their order, the head last; they add up to the network's counts.

    Args:
      network: The network; its BN groups and mesh axis do not matter.
      image_shape: (H, W, C).
      batch: Number of images whose activations are counted.
    """
    network = on_one_device(network)
    variables = variables_of(network, image_shape)
    names, outputs, parameters, multiply_adds = _inference(network, variables, image_shape)
    kept = _training(network, variables, names, (batch, *image_shape))
    units = dict(zip((n for n in names if n.startswith("stage")), network.stage_units, strict=False))
    return [
        StageCost(name, outputs[i], units.get(name, 0), parameters[i], multiply_adds[i], kept[i])
        for i, name in enumerate([*names, "head"])
    ]


def _inference(
    network: Network, variables: dict[str, Any], image_shape: tuple[int, int, int]
) -> tuple[list[str], list[tuple[int, ...]], list[int], list[int]]:
    """Returns the stages' names; and for each stage, then the head, the output's shape, parameters, multiply-adds."""
    named: dict[str, Array] = {}

    def logits_and_named(variables: dict[str, Any], images: Array) -> tuple[Array, list[Array]]:
        logits, named_here = network.apply(variables, images, train=False, intermediates=True)
        named.update(named_here)  # jax would sort the keys of a returned dict
        return logits, list(named_here.values())

    image = jax.ShapeDtypeStruct((1, *image_shape), network.layers.param_dtype)
    jaxpr = jax.make_jaxpr(logits_and_named)(variables, image).jaxpr
    names = [name for name, a in named.items() if a.ndim == 4]
    made = dict(zip(named, jaxpr.outvars[1:], strict=True))
    stage = assign_stages(jaxpr, [jaxpr.invars[-1]], [made[name] for name in names])

    head = len(names)
    parameters, multiply_adds = [0] * (head + 1), [0] * (head + 1)
    leaves = jax.tree.leaves_with_path(variables)
    for (path, leaf), v in zip(leaves, jaxpr.invars[:-1], strict=True):
        if path[0].key == "params":
            parameters[stage.get(v, head)] += math.prod(leaf.shape)
    for equation in jaxpr.eqns:
        count = multiply_adds_of_equation(equation)
        if count:
            multiply_adds[stage[equation.outvars[0]]] += count
    outputs = [named[name].shape[1:] for name in names] + [shaped(jaxpr.outvars[0]).shape[1:]]
    return names, outputs, parameters, multiply_adds


def _training(
    network: Network, variables: dict[str, Any], names: list[str], images_shape: tuple[int, ...]
) -> list[int]:
    """Counts the bytes that each stage, and then the head with the loss, stores for the backward pass of a batch."""

    def forward(variables: dict[str, Any], images: Array, labels: Array) -> tuple[list[Array], list[Array]]:
        state = {name: value for name, value in variables.items() if name != "params"}
        keys = jax.random.split(jax.random.key(0), len(labels)) if network.dropout else None

        def loss_of(params: Any) -> tuple[Array, list[Array]]:
            (logits, named), _ = network.apply(
                {"params": params, **state},
                images,
                train=True,
                intermediates=True,
                mutable=list(state),
                dropout_keys=keys,
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), [named[name] for name in names]

        _, backward, cuts = jax.vjp(loss_of, variables["params"], has_aux=True)
        return cuts, jax.tree.leaves(backward)

    images = jax.ShapeDtypeStruct(images_shape, network.layers.param_dtype)
    labels = jax.ShapeDtypeStruct(images_shape[:1], jnp.int32)
    jaxpr = jax.make_jaxpr(forward)(variables, images, labels).jaxpr
    cuts, residuals = jaxpr.outvars[: len(names)], jaxpr.outvars[len(names) :]
    stage = assign_stages(jaxpr, [jaxpr.invars[-2]], cuts)
    kept = [0] * (len(names) + 1)
    for v, count in kept_bytes(jaxpr, residuals).items():
        kept[stage.get(v, len(names))] += count
    return kept
