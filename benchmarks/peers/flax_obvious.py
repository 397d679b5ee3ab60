"""The obvious Flax version: ``nn.Conv`` and ``nn.BatchNorm``, units in a Python loop, one step per call."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array

from benchmarks.peers.network_sizes import NetworkSizes


class _Unit(nn.Module):
    filters: int
    stride: int
    sizes: NetworkSizes
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv = partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = partial(nn.BatchNorm, use_running_average=False, momentum=0.9, epsilon=1e-5, dtype=self.dtype)
        if self.sizes.bottleneck:
            first, second = (1, self.stride) if self.sizes.stride_on_3x3 else (self.stride, 1)
            y = nn.relu(norm()(conv(self.filters, (1, 1), first)(x)))
            y = nn.relu(norm()(conv(self.filters, (3, 3), second, padding=1)(y)))
            y = norm()(conv(4 * self.filters, (1, 1))(y))
        else:
            y = nn.relu(norm()(conv(self.filters, (3, 3), self.stride, padding=1)(x)))
            y = norm()(conv(self.filters, (3, 3), padding=1)(y))
        if x.shape != y.shape:
            if self.sizes.projection:
                x = norm()(conv(y.shape[-1], (1, 1), self.stride)(x))
            else:
                x = x[:, :: self.stride, :: self.stride]
                x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, y.shape[-1] - x.shape[-1])))
        return nn.relu(x + y)


class ResNet(nn.Module):
    """A residual network of the given sizes, in training mode."""

    sizes: NetworkSizes
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, 3] -> logits [N, classes]."""
        sizes, x = self.sizes, x.astype(self.dtype)
        size, stride = (7, 2) if sizes.large_stem else (3, 1)
        x = nn.Conv(sizes.filters[0], (size, size), stride, padding=size // 2, use_bias=False, dtype=self.dtype)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5, dtype=self.dtype)(x))
        if sizes.large_stem:
            x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, (units, filters) in enumerate(zip(sizes.stage_units, sizes.filters, strict=True)):
            for i in range(units):
                stride = 2 if stage and i == 0 else 1
                x = _Unit(filters, stride, sizes, self.dtype)(x)
        return nn.Dense(sizes.classes)(x.mean((1, 2), dtype=jnp.float32))


def training(sizes: NetworkSizes, dtype: str, batch: int) -> Callable[[int], Any]:
    """Returns ``run(count)``: ``count`` SGD steps (momentum 0.9, decay 1e-4) on one random batch, one step per call."""
    network = ResNet(sizes, jnp.dtype(dtype))
    optimizer = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(0.1, momentum=0.9))
    images = jax.random.normal(jax.random.key(0), (batch, sizes.side, sizes.side, 3))
    labels = jax.random.randint(jax.random.key(1), (batch,), 0, sizes.classes)
    variables = jax.jit(network.init)(jax.random.key(2), images[:2])
    state = variables["params"], variables["batch_stats"], optimizer.init(variables["params"])

    @partial(jax.jit, donate_argnums=0)
    def step(state: Any, images: Array, labels: Array) -> tuple[Any, Array]:
        params, batch_stats, opt_state = state

        def loss_of(params: Any) -> tuple[Array, Any]:
            logits, new = network.apply({"params": params, "batch_stats": batch_stats}, images, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), new["batch_stats"]

        (loss, batch_stats), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return (optax.apply_updates(params, updates), batch_stats, opt_state), loss

    def run(count: int) -> Any:
        nonlocal state
        for _ in range(count):
            state, loss = step(state, images, labels)
        return loss

    return run
