"""The convolution of these networks, as a function and as a layer.

On GPUs and TPUs it is XLA's own (xla_convolution.py), on CPUs a formulation that is faster there (cpu_convolution.py).
A compiled program contains only the formulation of its platform.
"""

import functools
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.nn.initializers import zeros

from resnet_flax.networks import compilation
from resnet_flax.networks import cpu_convolution as cpu
from resnet_flax.networks import xla_convolution as xla
from resnet_flax.networks.initialization import Initializer


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolution(x: Array, kernel: Array, stride: int = 1) -> Array:
    """Convolves images with a square kernel of odd size K, after padding them with ``K // 2`` zeros on every side.

    Args:
      x: Images [N, H, W, C].
      kernel: [K, K, C, F] of the dtype of x, K odd.
      stride: Stride along height and width.

    Returns:
      [N, ceil(H / stride), ceil(W / stride), F] of the dtype of ``x``:
      ``y[n, i, j, f] = sum_{a, b, c} x[n, s i + a - K//2, s j + b - K//2, c] kernel[a, b, c, f]``.

    It has reverse-mode derivatives of any order, but no forward mode (``jax.jvp``).
    """
    return _traced_once(cpu.forward, xla.forward)(x, kernel, stride=stride, kind=_kind())


@functools.cache
def _traced_once(on_cpu: Callable[..., Array], elsewhere: Callable[..., Array]) -> Callable[..., Array]:
    """Returns a function that chooses by platform, and is traced once for all layers with arguments of the same shapes.

    The function is inlined, so the program contains no call of it. Its argument ``kind`` only serves as a cache key, so
    that a trace is reused only as long as :func:`_kind` returns the same.
    """

    def choose(*arrays: Array, stride: int, kind: tuple[int, bool]) -> Array:
        return lax.platform_dependent(
            *arrays, cpu=partial(on_cpu, stride=stride), default=partial(elsewhere, stride=stride)
        )

    return jax.jit(choose, static_argnames=("stride", "kind"), inline=True)


def _kind() -> tuple[int, bool]:
    """Returns the global settings that the formulations for CPUs depend on beside their arguments."""
    return cpu.CHUNK_ELEMENTS, compilation.traces_for_onednn()


def _convolution_fwd(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return convolution(x, kernel, stride), (x, kernel)


def _convolution_bwd(stride: int, residuals: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    # The two gradients are separate functions, so that an unused one (of the images, at the stem) is never computed.
    keys = {"stride": stride, "kind": _kind()}
    dx = _traced_once(cpu.input_gradient, xla.input_gradient)(x, kernel, dy, **keys)
    dkernel = _traced_once(cpu.kernel_gradient, xla.kernel_gradient)(x, kernel, dy, **keys)
    return dx, dkernel


convolution.defvjp(_convolution_fwd, _convolution_bwd)


class Convolution(nn.Module):
    """A convolution layer: :func:`convolution` with a kernel [K, K, C, filters], and an optional bias.

    Attributes:
      filters: Number of output channels.
      size: Kernel size K, odd.
      stride: Stride along height and width.
      kernel_init: Initializer of the kernel.
      dtype: Type of the computation.
      param_dtype: Type of the parameters.
      use_bias: Whether to add a bias for each filter, which starts at 0.
    """

    filters: int
    size: int
    stride: int
    kernel_init: Initializer
    dtype: jnp.dtype
    param_dtype: jnp.dtype
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), filters]."""
        shape = (self.size, self.size, x.shape[-1], self.filters)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        y = convolution(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)
        if self.use_bias:
            y += self.param("bias", zeros, (self.filters,), self.param_dtype).astype(self.dtype)
        return y
