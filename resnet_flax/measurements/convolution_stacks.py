"""Stacks of convolutions, timed alone: a bottleneck beside two 3x3 layers, and 1x1 beside 3x3 convolutions."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from resnet_flax.analysis.counts import multiply_adds_of
from resnet_flax.measurements.timing import Spread
from resnet_flax.networks.compilation import jit
from resnet_flax.networks.convolution import convolution


@dataclasses.dataclass(frozen=True)
class Stack:
    """A sequence of convolutions with ReLU between them, without biases and BN.

    Attributes:
      name: The name in messages and tables.
      channels: Number of input channels.
      layers: (kernel size, filters) of each convolution.
      side: Height and width of the images.
    """

    name: str
    channels: int
    layers: tuple[tuple[int, int], ...]
    side: int

    def __call__(self, x: Array, kernels: Sequence[Array]) -> Array:
        """[N, side, side, channels] -> [N, side, side, filters of the last convolution]."""
        for i, kernel in enumerate(kernels):
            x = convolution(jax.nn.relu(x) if i else x, kernel)
        return x

    @property
    def kernels(self) -> list[tuple[int, ...]]:
        """Shapes of the kernels, [K, K, C, F]."""
        inputs = (self.channels, *(filters for _, filters in self.layers))
        return [(k, k, c, f) for (k, f), c in zip(self.layers, inputs, strict=False)]

    @property
    def parameters(self) -> int:
        """The number of values in the kernels."""
        return sum(math.prod(shape) for shape in self.kernels)

    @property
    def multiply_adds(self) -> int:
        """The multiply-adds for one image, counted from the program."""
        x = jax.ShapeDtypeStruct((1, self.side, self.side, self.channels), jnp.float32)
        return multiply_adds_of(self, x, [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in self.kernels])


# Fig. 5 of arXiv:1512.03385: left, right, and the right one without its 1x1 layers; on images as large as in conv4_x.
TWO_64 = Stack("two 3x3 of 64", 64, ((3, 64), (3, 64)), 14)
BOTTLENECK = Stack("bottleneck 256-64-64-256", 256, ((1, 64), (3, 64), (1, 256)), 14)
TWO_256 = Stack("two 3x3 of 256", 256, ((3, 256), (3, 256)), 14)
FIGURE_5 = (BOTTLENECK, TWO_64, TWO_256)

# (side, filters) of the three stages of the CIFAR networks, and of a bottleneck's 3x3 layer in conv4_x.
_SHAPES = ((32, 16), (16, 32), (8, 64), (14, 256))
PAIRS = tuple(
    tuple(Stack(f"{k}x{k} of {filters} on {side}x{side}", filters, ((k, filters),), side) for k in (1, 3))
    for side, filters in _SHAPES
)

STACKS = (*FIGURE_5, *(stack for pair in PAIRS for stack in pair))
WAYS = ("forward", "forward and backward")


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of a stack on a batch: the forward pass alone, and forward and backward pass together."""

    forward: Spread
    both: Spread


def calls(batch: int, key: Array, done: Callable[[str], None]) -> dict[str, Callable[[], Any]]:
    """Compiles each stack, forward and forward with backward, on random images and kernels (He's initialisation).

    Args:
      batch: Number of images.
      key: Random key of images and kernels.
      done: Called with a message after each stack.

    Returns:
      The calls, by the names of :func:`name_of`.
    """
    found: dict[str, Callable[[], Any]] = {}
    for stack in STACKS:
        x = jax.random.normal(key, (batch, stack.side, stack.side, stack.channels))
        kernels = [jax.random.normal(key, s) * math.sqrt(2 / math.prod(s[:3])) for s in stack.kernels]

        def both(x: Array, kernels: list[Array], dy: Array, stack: Stack = stack) -> Any:
            y, pull = jax.vjp(stack, x, kernels)
            return y, pull(dy)

        forward = jit(stack.__call__).lower(x, kernels).compile()
        dy = forward(x, kernels)
        both = jit(both).lower(x, kernels, dy).compile()
        found[name_of(stack, WAYS[0])] = partial(forward, x, kernels)
        found[name_of(stack, WAYS[1])] = partial(both, x, kernels, dy)
        done(f"compiled {stack.name}")
    return found


def name_of(stack: Stack, way: str) -> str:
    """Names a stack's call, in messages and results; ``way`` is one of ``WAYS``."""
    return f"{stack.name}, {way}"


def times(measured: Mapping[str, Spread], stack: Stack) -> Times:
    """Returns a stack's times from the measurements of all :func:`calls`."""
    return Times(*(measured[name_of(stack, way)] for way in WAYS))
