"""Probes that observe a network layer by layer, and cost nothing unless they are requested.

Probes write to three collections of variables. A caller of ``network.apply`` requests a collection by making it
mutable. None of them is among a network's initial variables, so they never enter a checkpoint:

* ``responses``: the standard deviation of each layer's response (arXiv:1512.03385, section 4.2, Fig. 7);
* ``perturbations``: zeros of each response's shape, which are added to it. The gradient with respect to them is the
  gradient with respect to the response, also in a scanned stage;
* ``gates``: how far each gate of a highway network is open.

In a scanned stage, the values of its units after the first are stacked along a leading axis, like their parameters::

    _, seen = network.apply(variables, images, mutable=["responses"])
    seen["responses"]["stage1"]["rest"]["response2"]["deviation"]  # [units - 1]

    _, zeros = network.apply(variables, images, mutable=["perturbations"])
    jax.grad(lambda p: loss(network.apply({**variables, **p}, images)))(zeros)  # dloss / dresponse
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

COLLECTIONS = ("responses", "perturbations", "gates")


def is_requested(module: nn.Module, collection: str) -> bool:
    """Tells whether the caller requested the collection; ``init``, which makes every collection mutable, does not."""
    return module.is_mutable_collection(collection) and not module.is_initializing()


def record(module: nn.Module, collection: str, name: str, value: Array) -> None:
    """Writes a value to a requested collection, replacing an earlier value of that name."""
    module.sow(collection, name, value, reduce_fn=lambda _, new: new, init_fn=lambda: None)


def mean_over_batch(x: Array, axis_name: str | None) -> Array:
    """Returns the mean of all entries over the global batch, at least float32."""
    mean = x.astype(jnp.promote_types(x.dtype, jnp.float32)).mean()
    return lax.pmean(mean, axis_name) if axis_name else mean


class Probe(nn.Module):
    """The identity on a layer's response, which makes the response observable; it has no parameters.

    Probes after 3x3 convolutions are named ``response1``, ... and ``stem_response``, probes after 1x1 convolutions
    ``pointwise1``, .... The paper's Fig. 7 shows 3x3 layers only.

    Attributes:
      axis_name: The mesh axis over which the batch is sharded, or None.
    """

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> [N, H, W, C], unchanged unless it is perturbed.

        If requested, the collection ``responses`` receives ``deviation``, a scalar of at least float32: the standard
        deviation over the global batch, positions and channels. ``perturbations`` holds ``response``, [N, H, W, C],
        which is added to x.
        """
        if is_requested(self, "perturbations") or self.has_variable("perturbations", "response"):
            x = self.perturb("response", x)
        if is_requested(self, "responses"):
            values = x.astype(jnp.promote_types(x.dtype, jnp.float32))
            centred = values - mean_over_batch(values, self.axis_name)
            record(self, "responses", "deviation", jnp.sqrt(mean_over_batch(jnp.square(centred), self.axis_name)))
        return x
