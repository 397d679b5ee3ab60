"""Which stage of a network each step of a traced program belongs to.

A program is cut at the network's named outputs (``stem``, ``stage1``, ...): what a stage's output is computed from,
and what an earlier one is not, is that stage's. So no unit and no family needs to be known here.
"""

from collections.abc import Sequence

from jax.extend import core


def assign_stages(
    jaxpr: core.Jaxpr, data: Sequence[core.Var], cuts: Sequence[core.Var | core.Literal]
) -> dict[core.Var, int]:
    """The stage of every variable of a program; loops and calls are single steps here.

    Args:
      jaxpr: of a program.
      data: its inputs that flow through the stages: the images.
      cuts: the outputs of its stages, in their order.

    Returns:
      For each variable ``i`` where it is made after the cut before the i-th one, and up to that one;
      ``len(cuts)`` after all of them. What no data has gone into (parameters, and what is made of them alone) is in
      the stage that uses it first; what nothing uses is not there.
    """
    stage = dict.fromkeys(data, 0)
    opens = {cut: i for i, cut in enumerate(cuts, start=1)}
    for equation in jaxpr.eqns:
        read = [max(stage[v], opens.get(v, 0)) for v in equation.invars if isinstance(v, core.Var) and v in stage]
        if read:
            stage.update(dict.fromkeys(equation.outvars, max(read)))

    used: dict[core.Var, int] = {}
    for equation in reversed(jaxpr.eqns):
        here = [s for v in equation.outvars if (s := stage.get(v, used.get(v))) is not None]
        for v in equation.invars if here else ():
            if isinstance(v, core.Var) and v not in stage:
                used[v] = min(*here, used.get(v, here[0]))
    return stage | used
