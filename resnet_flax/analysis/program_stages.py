"""Assigns the equations of a traced program to the stages of the network.

The program is cut at the network's named outputs (``stem``, ``stage1``, ...). An equation belongs to the first stage
whose output depends on it. This works for every unit and family.
"""

from collections.abc import Sequence

from jax.extend import core


def assign_stages(
    jaxpr: core.Jaxpr, data: Sequence[core.Var], cuts: Sequence[core.Var | core.Literal]
) -> dict[core.Var, int]:
    """Returns the stage of each variable of a program, counted from 0; a loop or a call is a single equation here.

    Args:
      jaxpr: The program.
      data: The inputs that flow through the stages: the images.
      cuts: The outputs of the stages, in their order.

    Returns:
      The stage i of each variable: a variable in stage i is computed after cut i - 1, and up to cut i. Variables after
      the last cut are in stage ``len(cuts)``. A variable that does not depend on the data (a parameter, or a function
      of parameters) is in the first stage that uses it. Unused variables are left out.
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
