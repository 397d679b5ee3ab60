"""Parameters, multiply-adds and memory traffic of a network, without running or compiling it."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import partial_eval

from resnet_flax.networks import Network

_Number = TypeVar("_Number", int, float)


def shaped(v: core.Var | core.Literal) -> jax.core.ShapedArray:
    """Returns the shape and dtype of an array in a jaxpr."""
    assert isinstance(v.aval, jax.core.ShapedArray), f"{v.aval} is no array"
    return v.aval


def parameters(network: Network, image_shape: tuple[int, int, int]) -> int:
    """Counts the trained values: kernels, BN's scales and biases, the dense layer's bias."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables_of(network, image_shape)["params"]))


def multiply_adds(network: Network, image_shape: tuple[int, int, int]) -> int:
    """Counts the multiply-adds of classifying one image, in convolutions and the dense layer.

    Table 1 of arXiv:1512.03385 gives them as FLOPs.
    """
    variables = variables_of(network, image_shape)
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return multiply_adds_of(lambda v, x: network.apply(v, x, train=False), variables, image)


def multiply_adds_of(function: Callable[..., Any], *arguments: Any) -> int:
    """Counts the multiply-adds of the convolutions and matrix products in a function, from its jaxpr.

    * The body of a scan counts as often as it runs (XLA's own count takes it once).
    * Zeros that pad a convolution's input count like other values, as is usual. Zeros between the positions of a
      strided convolution's gradient do not count.
    * Of a conditional, the branch with the most multiply-adds counts. Of a choice by platform, the default branch
      counts, which in this project is the one for GPUs and TPUs.
    * Operations on which no result depends do not count.

    Raises:
      ValueError: The function contains a loop whose length is unknown before it runs.
    """
    return _count(_needed(function, *arguments), _multiply_adds)


def least_bytes_of(function: Callable[..., Any], *arguments: Any, on_chip: float = 0) -> float:
    """Counts the bytes that the convolutions and matrix products in a function read and write at least.

    Each operand and each result counts once. No program moves less, however well it fuses the operations between
    convolutions (BN, ReLU, additions). Loops and branches count as in :func:`multiply_adds_of`.

    Args:
      on_chip: Bytes of each array that may already be on the chip, or stay there.
    """

    def of_layer(equation: core.JaxprEqn) -> float:
        arrays = [shaped(v) for v in (*equation.invars, *equation.outvars)]
        return sum(max(0, math.prod(a.shape) * a.dtype.itemsize - on_chip) for a in arrays)

    return _count(_needed(function, *arguments), of_layer)


def variables_of(network: Network, image_shape: tuple[int, int, int]) -> Any:
    """Returns the shapes and dtypes of a network's variables (``params``, ``batch_stats``), without computing them."""
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    # The key is created inside the abstract evaluation; outside, jax would compile and run a program for it.
    return jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), image)


def _needed(function: Callable[..., Any], *arguments: Any) -> core.Jaxpr:
    """Returns the jaxpr of a function, without operations on which no result depends."""
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    return partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0]


def _count(jaxpr: core.Jaxpr, of_layer: Callable[[core.JaxprEqn], _Number]) -> _Number:
    return sum(_count_equation(equation, of_layer) for equation in jaxpr.eqns)


def multiply_adds_of_equation(equation: core.JaxprEqn) -> int:
    """Counts the multiply-adds of one equation of a jaxpr and of all jaxprs in it, as :func:`multiply_adds_of` does."""
    return _count_equation(equation, _multiply_adds)


def _count_equation(equation: core.JaxprEqn, of_layer: Callable[[core.JaxprEqn], _Number]) -> _Number:
    """Sums ``of_layer`` over the convolutions and matrix products that run in one equation of a jaxpr."""
    name, params = equation.primitive.name, equation.params
    if name in ("conv_general_dilated", "dot_general"):
        return of_layer(equation)
    inner = [_count(j, of_layer) for j in _inner_jaxprs(params)]
    if name == "cond":
        platforms = params.get("branches_platforms") or ()
        return inner[platforms.index(None)] if None in platforms else max(inner)
    if name == "while" and any(inner):
        raise ValueError("a while loop's multiply-adds cannot be counted before it runs")
    return sum(inner) * params.get("length", 1) if name == "scan" else sum(inner)


def _multiply_adds(equation: core.JaxprEqn) -> int:
    out, params = shaped(equation.outvars[0]), equation.params
    if equation.primitive.name == "conv_general_dilated":
        kernel = shaped(equation.invars[1])
        filters = kernel.shape[params["dimension_numbers"].rhs_spec[0]]
        return math.prod(out.shape) * math.prod(kernel.shape) // filters // math.prod(params["lhs_dilation"])
    (contracted, _), _ = params["dimension_numbers"]
    return math.prod(out.shape) * math.prod(shaped(equation.invars[0]).shape[i] for i in contracted)


def _inner_jaxprs(params: dict[str, Any]) -> list[core.Jaxpr]:
    found = []
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(item, "jaxpr", item)  # a ClosedJaxpr contains the Jaxpr
            if isinstance(inner, core.Jaxpr):
                found.append(inner)
    return found
