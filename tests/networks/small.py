"""Small networks in float64, and variables for them that are drawn without compiling a program."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from resnet_flax import config
from resnet_flax.networks import build


def network(unit, block="basic", classes=10, axis_name=None, bn_group=0, **keys):
    """Builds a network of two scanned stages, half as wide as those of the CIFAR family."""
    c = config.base()
    given = dict(unit=unit, block=block, stage_units=(3, 2), width=0.5, dtype="float64", param_dtype="float64")
    c.model.update(given | keys)
    return build(c.model, classes, bn_group, axis_name)


def images_and_labels(count=8, side=8):
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.standard_normal((count, side, side, 3))), jnp.asarray(rng.integers(0, 10, count), jnp.int32)


def variables_of(net, x, seed=1):
    """Draws kernels of He's variance; and scales, biases and statistics that differ between layers.

    With them, a test notices layers in a wrong order.
    """
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            # Input axes of a dense layer or a convolution; scanned kernels have one more axis in front.
            axes = 1 if leaf.ndim == 2 else 3
            return rng.standard_normal(leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[-1 - axes : -1]))
        start = 1 if path[-1].key in ("scale", "var") else 0
        return start + rng.uniform(-0.3, 0.3, leaf.shape)

    shapes = jax.eval_shape(net.init, jax.random.key(0), x)
    return jax.tree_util.tree_map_with_path(lambda p, leaf: jnp.asarray(draw(p, leaf), leaf.dtype), shapes)


def loss_and_gradients(net, variables, x, labels):
    """Returns the loss in training with (logits, updated statistics), and the gradients of (parameters, images)."""

    def loss(params, x):
        logits, updates = net.apply({**variables, "params": params}, x, True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), (logits, updates)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(variables["params"], x)
