"""Probes: where a network can be looked into, layer by layer, at no cost when nobody looks.

Three collections of variables hold what is seen. None of them is part of a network's initial variables, so none
reaches a checkpoint; a caller of ``network.apply`` asks for one by making it mutable:

* ``responses``: the standard deviation of each layer's response (arXiv:1512.03385, section 4.2, Fig. 7);
* ``perturbations``: zeros of each response's shape, to be added to it: the gradient with respect to them is the
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
    """Whether the caller made the collection mutable; ``init``, which makes all of them so, does not ask."""
    return module.is_mutable_collection(collection) and not module.is_initializing()


def record(module: nn.Module, collection: str, name: str, value: Array) -> None:
    """Puts a value into a collection that :func:`is_requested` for, in place of an earlier one."""
    module.sow(collection, name, value, reduce_fn=lambda _, new: new, init_fn=lambda: None)


def mean_over_batch(x: Array, axis_name: str | None) -> Array:
    """The mean of all entries over the global batch; at least float32."""
    mean = x.astype(jnp.promote_types(x.dtype, jnp.float32)).mean()
    return lax.pmean(mean, axis_name) if axis_name else mean


class Probe(nn.Module):
    """The identity on a layer's response, which can be looked at; it has no parameters.

    Probes of 3x3 convolutions are named ``response1``, ... (and ``stem_response``), those of 1x1 convolutions
    ``pointwise1``, ...: the paper's Fig. 7 is about the former.

    Attributes:
      axis_name: the mesh axis that the batch is split over, or None.
    """

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> the same.

        ``responses`` gets ``deviation``, a scalar of at least float32: the standard deviation over the global batch,
        positions and channels. ``perturbations`` holds ``response``, [N, H, W, C], which is added to x.
        """
        if is_requested(self, "perturbations") or self.has_variable("perturbations", "response"):
            x = self.perturb("response", x)
        if is_requested(self, "responses"):
            values = x.astype(jnp.promote_types(x.dtype, jnp.float32))
            centred = values - mean_over_batch(values, self.axis_name)
            record(self, "responses", "deviation", jnp.sqrt(mean_over_batch(jnp.square(centred), self.axis_name)))
        return x
