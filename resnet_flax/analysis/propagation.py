"""Propagation of signals and gradients through a network, layer by layer, measured in the compiled, scanned program.

"Deep Residual Learning for Image Recognition" (arXiv:1512.03385): section 4.1 argues that with BN neither forward nor
backward signals vanish, and Fig. 7 shows the standard deviations of layer responses.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from resnet_flax.analysis.layer_order import layers_in_order, reduce_layers
from resnet_flax.networks import Network
from resnet_flax.networks.compilation import jit

# The layers along the network's main path: neither gates nor projections of shortcuts.
_WEIGHTS = r"stem_conv|conv\d+|last_conv|hidden\d+|dense"
_RESPONSES = r"stem_response|response\d+"

LayerValues = list[tuple[str, float]]  # a layer's name and its value, in the network's order


@dataclasses.dataclass(frozen=True)
class Propagation:
    """Gradient norms and response deviations of each layer, for one batch.

    A layer's response is its output after BN, before the nonlinearity or the addition (Fig. 7). In pre-activation units
    it is the convolution's output.

    Attributes:
      loss: Mean cross-entropy.
      weights: L2 norm of the loss's gradient with respect to each layer's kernel.
      activations: L2 norm of the loss's gradient with respect to each 3x3 layer's response, over the batch, positions
        and channels.
      responses: Standard deviation of each 3x3 layer's response, over the batch, positions and channels.
    """

    loss: float
    weights: LayerValues
    activations: LayerValues
    responses: LayerValues


def measure(network: Network, variables: Mapping[str, Any], images: Array, labels: Array) -> Propagation:
    """Measures gradients and responses of a network, with the batch's BN statistics as in training, without dropout.

    Args:
      network: A network without a mesh axis (:func:`~.networks.on_one_device`).
      variables: ``params``, and ``batch_stats`` if the network has BN.
      images: [N, H, W, C], normalised.
      labels: [N] int32.
    """
    variables = {k: v for k, v in variables.items() if k in ("params", "batch_stats")}
    network = network.clone(dropout=0.0, frozen=False)
    loss, found = jax.device_get(jit(_statistics, static_argnums=0)(network, variables, images, labels))

    def listed(what: str, leaf: str, layers: str) -> LayerValues:
        return [(name, float(value)) for name, value in layers_in_order(found[what], leaf, layers)]

    return Propagation(
        float(loss),
        listed("weights", "kernel", _WEIGHTS),
        listed("activations", "response", _RESPONSES),
        listed("responses", "deviation", _RESPONSES),
    )


def _statistics(network: Network, variables: dict, images: Array, labels: Array) -> tuple[Array, dict[str, Any]]:
    rest = {k: v for k, v in variables.items() if k != "params"}

    def loss_of(params: Any, perturbations: Any) -> tuple[Array, Any]:
        given = {"params": params, "perturbations": perturbations, **rest}
        logits, seen = network.apply(given, images, True, mutable=["batch_stats", "responses"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), seen["responses"]

    # Zeros of each response's shape are added to it: their gradient is the gradient with respect to the response.
    _, asked = jax.eval_shape(
        lambda v: network.apply(v, images, True, mutable=["batch_stats", "perturbations"]), variables
    )
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), asked["perturbations"])
    gradient = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)
    (loss, responses), (weights, activations) = gradient(variables["params"], zeros)

    def norm(x: Array) -> Array:
        return jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.promote_types(x.dtype, jnp.float32)))))

    found = {"weights": reduce_layers(weights, norm), "activations": reduce_layers(activations, norm)}
    return loss, found | {"responses": responses}
