"""Activation memory: the bytes that a training step's forward pass stores for its backward pass.

The count includes the residuals of the loss's reverse-mode derivative with respect to the parameters (``jax.vjp``),
each array once. It does not include:

* arrays that exist anyway: parameters, running statistics, images and labels;
* arrays that are an elementwise function of one stored array (such as twice it, or a reshape) or of constants, since
  the compiler recomputes them where they are needed. In a loop over a stage's units it cannot: the loop stores the
  residuals of each iteration, whatever they are. There they count;
* temporary arrays within a pass: gradients of activations, the operands of the kernels' gradients, and the gradients of
  the parameters (as many bytes as the parameters).

The compiler may also recompute a ReLU's mask (one byte per element), and it needs room for the temporary arrays. On a
CPU, for batches of at least 16 images, the temporaries of the compiled step less the bytes of the parameters' gradients
are 0.85 to 1.2 times this count (tests/analysis/test_activations.py).
"""

import math
from collections.abc import Collection, Sequence

from jax.extend import core

from resnet_flax.analysis.counts import shaped

_Makers = dict[core.Var, core.JaxprEqn]


def kept_bytes(
    jaxpr: core.Jaxpr, residuals: Sequence[core.Var | core.Literal], free: Collection[core.Var] | None = None
) -> dict[core.Var, int]:
    """Counts the bytes of each residual of a program, by the rules of the module's docstring.

    Args:
      jaxpr: The forward pass.
      residuals: Those outputs of the forward pass that the backward pass needs.
      free: Inputs that cost nothing to keep; by default all inputs.
    """
    free = {*jaxpr.constvars, *(jaxpr.invars if free is None else free)}
    makers = {v: equation for equation in jaxpr.eqns for v in equation.outvars}
    kept = {v for v in residuals if isinstance(v, core.Var) and v not in free}
    loops = {id(makers[v]): makers[v] for v in kept if v in makers and _is_unrolled(makers[v])}
    found = {v: _bytes(v, makers, free | kept) for v in kept}
    for loop in loops.values():
        found.update(_in_unrolled_loop(loop, kept))
    return found


def _bytes(residual: core.Var, makers: _Makers, free: set[core.Var]) -> int:
    """Returns the bytes of the smallest array from which the residual can be recomputed element by element."""
    smallest, v = _size(residual), residual
    while v in makers and _is_elementwise(makers[v]):
        operands = [operand for operand in makers[v].invars if isinstance(operand, core.Var)]
        if not operands or operands[0] in free:
            return 0
        v = operands[0]
        smallest = min(smallest, _size(v))
    return smallest


def _is_elementwise(equation: core.JaxprEqn) -> bool:
    """Tells whether an equation computes one array elementwise from one other (or from constants), or broadcasts it."""
    operands = [v for v in equation.invars if isinstance(v, core.Var)]
    if len(operands) > 1 or len(equation.outvars) != 1:
        return False
    sizes = {math.prod(shaped(v).shape) for v in (*operands, *equation.outvars)}
    return len(sizes) == 1 or equation.primitive.name == "broadcast_in_dim"


def _is_unrolled(equation: core.JaxprEqn) -> bool:
    """Tells whether an equation is a scan that the compiler unrolls completely (``model.unroll``)."""
    return equation.primitive.name == "scan" and equation.params["unroll"] >= equation.params["length"]


def _in_unrolled_loop(loop: core.JaxprEqn, kept: set[core.Var]) -> dict[core.Var, int]:
    """Counts the bytes of an unrolled loop's residuals, by the rules that hold outside loops."""
    body, length = loop.params["jaxpr"].jaxpr, loop.params["length"]
    # A carried array has the same shape inside and outside the loop, a stacked one has one more axis outside. Shapes
    # tell how many of each there are, because jax versions store these numbers under different names.
    carries = _same_shapes(loop.outvars, body.outvars)
    consts = _same_shapes(loop.invars, body.invars) - carries
    stacked = zip(loop.outvars[carries:], body.outvars[carries:], strict=True)
    residuals = {v: inner for v, inner in stacked if v in kept}
    # The carried inputs of an iteration are activations; all other inputs exist anyway.
    free = [*body.invars[:consts], *body.invars[consts + carries :]]
    per_iteration = kept_bytes(body, list(residuals.values()), free)
    return {v: length * per_iteration.get(inner, 0) for v, inner in residuals.items()}


def _same_shapes(outside: Sequence[core.Var | core.Literal], inside: Sequence[core.Var | core.Literal]) -> int:
    return sum(shaped(a).shape == shaped(b).shape for a, b in zip(outside, inside, strict=True))


def _size(v: core.Var) -> int:
    return math.prod(shaped(v).shape) * shaped(v).dtype.itemsize
