"""Activation memory: what a training step keeps from its forward pass for its backward pass.

Counted are the residuals of the loss's reverse-mode derivative by the parameters (``jax.vjp``), in bytes, each array
once. Not counted:

* what is there anyway: parameters, running statistics, the images and labels themselves;
* what is an elementwise function of one array that is kept (twice it, its shape changed) or of constants: the
  compiler makes it again where it is needed. In a loop over a stage's units it cannot: the loop stores what each
  round leaves, whatever it is, and so it counts there;
* what comes and goes within a pass: gradients of activations, columns of the kernels' gradients, the gradients of the
  parameters (as many bytes as the parameters).

The compiler may also make a ReLU's mask again, a byte an element, and needs room for what comes and goes. On a CPU, in
batches of 16 images and more, the temporaries of the compiled step less the bytes of the parameters' gradients are
between 0.85 and 1.2 times this count: tests/analysis/test_activations.py.
"""

import math
from collections.abc import Collection, Sequence

from jax.extend import core

from resnet_flax.analysis.counts import shaped

_Makers = dict[core.Var, core.JaxprEqn]


def kept_bytes(
    jaxpr: core.Jaxpr, residuals: Sequence[core.Var | core.Literal], there: Collection[core.Var] | None = None
) -> dict[core.Var, int]:
    """Bytes of those of a program's outputs that the backward pass needs, as the module's docstring counts them.

    Args:
      jaxpr: of the forward pass.
      residuals: those of its outputs.
      there: inputs that cost nothing to keep; by default all of them.
    """
    there = {*jaxpr.constvars, *(jaxpr.invars if there is None else there)}
    makers = {v: equation for equation in jaxpr.eqns for v in equation.outvars}
    kept = {v for v in residuals if isinstance(v, core.Var) and v not in there}
    loops = {id(makers[v]): makers[v] for v in kept if v in makers and _is_unrolled(makers[v])}
    found = {v: _bytes(v, makers, there | kept) for v in kept}
    for loop in loops.values():
        found.update(_in_unrolled_loop(loop, kept))
    return found


def _bytes(residual: core.Var, makers: _Makers, there: set[core.Var]) -> int:
    smallest, v = _size(residual), residual
    while v in makers and _is_elementwise(makers[v]):
        operands = [operand for operand in makers[v].invars if isinstance(operand, core.Var)]
        if not operands or operands[0] in there:
            return 0
        v = operands[0]
        smallest = min(smallest, _size(v))
    return smallest


def _is_elementwise(equation: core.JaxprEqn) -> bool:
    """Tells whether an equation makes an array of one other (or of constants), element by element, repeated or not."""
    operands = [v for v in equation.invars if isinstance(v, core.Var)]
    if len(operands) > 1 or len(equation.outvars) != 1:
        return False
    sizes = {math.prod(shaped(v).shape) for v in (*operands, *equation.outvars)}
    return len(sizes) == 1 or equation.primitive.name == "broadcast_in_dim"


def _is_unrolled(equation: core.JaxprEqn) -> bool:
    """Tells whether an equation is a scan whose every round the compiled program holds (``model.unroll``)."""
    return equation.primitive.name == "scan" and equation.params["unroll"] >= equation.params["length"]


def _in_unrolled_loop(loop: core.JaxprEqn, kept: set[core.Var]) -> dict[core.Var, int]:
    """Bytes of what the rounds leave, counted as outside loops."""
    body, length = loop.params["jaxpr"].jaxpr, loop.params["length"]
    # What is carried has the same shape in a round and outside; what is stacked has one axis more outside. (How many of
    # which there are stands in the parameters of a scan under names that differ from jax to jax.)
    carries = _alike(loop.outvars, body.outvars)
    consts = _alike(loop.invars, body.invars) - carries
    stacked = zip(loop.outvars[carries:], body.outvars[carries:], strict=True)
    left = {v: inner for v, inner in stacked if v in kept}
    # What a round gets from the one before is an activation; all else that it gets is there anyway.
    there = [*body.invars[:consts], *body.invars[consts + carries :]]
    a_round = kept_bytes(body, list(left.values()), there)
    return {v: length * a_round.get(inner, 0) for v, inner in left.items()}


def _alike(outside: Sequence[core.Var | core.Literal], inside: Sequence[core.Var | core.Literal]) -> int:
    return sum(shaped(a).shape == shaped(b).shape for a, b in zip(outside, inside, strict=True))


def _size(v: core.Var) -> int:
    return math.prod(shaped(v).shape) * shaped(v).dtype.itemsize
