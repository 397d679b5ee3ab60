"""The convolution of these networks, and the layer that is made of it.

On GPUs and TPUs it is XLA's (xla_convolution.py). On CPUs it is computed in formulations of our own
(cpu_convolution.py). A program is compiled for one platform, and has only what that platform computes.
"""

import functools
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from resnet_flax.networks import compilation
from resnet_flax.networks import cpu_convolution as cpu
from resnet_flax.networks import xla_convolution as xla
from resnet_flax.networks.initialization import Initializer, zeros


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolution(x: Array, kernel: Array, stride: int = 1) -> Array:
    """Convolves images with an odd, square kernel, padded by ``K // 2`` on every side.

    Args:
      x: images [N, H, W, C].
      kernel: [K, K, C, F] of the same dtype, K odd.
      stride: of both directions.

    Returns:
      [N, ceil(H / stride), ceil(W / stride), F] of the dtype of ``x``:
      ``y[n, i, j, f] = sum_{a, b, c} x[n, s i + a - K//2, s j + b - K//2, c] kernel[a, b, c, f]``.

    Reverse-mode derivatives of any order; forward mode (``jax.jvp``) is not defined.
    """
    return _traced_once(cpu.forward, xla.forward)(x, kernel, stride=stride, kind=_kind())


@functools.cache
def _traced_once(on_cpu: Callable[..., Array], elsewhere: Callable[..., Array]) -> Callable[..., Array]:
    """Chooses by platform, and is traced once for arguments of a kind, however many layers are of that kind.

    Inlined, it leaves no trace in the program. ``kind`` is only a key: a trace holds for what :func:`_kind` gives.
    """

    def choose(*arrays: Array, stride: int, kind: tuple[int, bool]) -> Array:
        return lax.platform_dependent(
            *arrays, cpu=partial(on_cpu, stride=stride), default=partial(elsewhere, stride=stride)
        )

    return jax.jit(choose, static_argnames=("stride", "kind"), inline=True)


def _kind() -> tuple[int, bool]:
    """Returns what the formulations on a CPU depend on beside their arguments."""
    return cpu.CHUNK_ELEMENTS, compilation.traces_for_onednn()


def _convolution_fwd(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return convolution(x, kernel, stride), (x, kernel)


def _convolution_bwd(stride: int, residuals: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    # Two switches, not one: what nobody needs (the images' gradient, at the stem) is then never computed.
    keys = {"stride": stride, "kind": _kind()}
    dx = _traced_once(cpu.input_gradient, xla.input_gradient)(x, kernel, dy, **keys)
    dkernel = _traced_once(cpu.kernel_gradient, xla.kernel_gradient)(x, kernel, dy, **keys)
    return dx, dkernel


convolution.defvjp(_convolution_fwd, _convolution_bwd)


class Convolution(nn.Module):
    """A convolution layer: :func:`convolution` with a kernel [K, K, C, filters], and a bias where it is asked for.

    Attributes:
      filters: channels of the output.
      size: K, odd.
      stride: of both directions.
      kernel_init: draws the kernel.
      dtype: of the computation; the kernel itself is kept in ``param_dtype``.
      use_bias: whether there is a bias, a number for each filter, 0 at the start.
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
