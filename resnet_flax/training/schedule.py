"""Learning-rate schedules."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax
from jax import Array
from ml_collections import ConfigDict

from resnet_flax.config import milestones
from resnet_flax.registry import Registry


def learning_rate(optimizer: Mapping[str, Any], schedule: Mapping[str, Any]) -> optax.Schedule:
    """Builds the schedule of the sections ``optimizer`` and ``schedule`` of a config.

    With the initial rate r at step t, counted from 0::

        constant    r
        piecewise   r * factor ** (number of milestones m with m <= t)
        cosine      r * (1 + cos(pi * min(t, T) / T)) / 2             where T = decay_steps

        linear warm-up      the above * min((t + 1) / W, 1)           where W = warmup_steps
        constant warm-up    warmup_learning_rate while t < W, then the above

    The paper (arXiv:1512.03385, section 4.2) lowers the rate to a tenth at steps 32k and 48k, and trains ResNet-110 at
    0.01 until the training error is below 80%, about 400 steps. Here the number of warm-up steps is fixed, so that the
    rate depends on the step only. Linear warm-up is that of arXiv:1706.02677, section 2.2.

    Numbers may be traced arrays (:mod:`~.recipe`), for which optax's own schedules do not work: they compare numbers in
    Python. ``warmup_steps`` is the int 0 or such an array.

    Returns:
      The function step (int32) -> learning rate.
    """
    main = SCHEDULES[schedule["name"]](jnp.asarray(optimizer["learning_rate"]), schedule)
    steps = schedule["warmup_steps"]
    if isinstance(steps, int) and steps == 0:
        return main

    def with_warmup(step: Array) -> Array:
        if schedule["warmup"] == "linear":
            return main(step) * jnp.minimum((step + 1) / steps, 1)
        return jnp.where(step < steps, schedule["warmup_learning_rate"], main(step))

    return with_warmup


def schedule_warning(config: ConfigDict) -> str:
    """Returns a warning if the schedule is hardly what the user wants; otherwise an empty string.

    That is the case if the warm-up is faster than the training, or if the run ends before the learning rate is lowered.
    """
    schedule, steps, rate = config.schedule, config.train.steps, config.optimizer.learning_rate
    if schedule.name == "piecewise" and schedule.milestones and min(schedule.milestones) >= steps > 1:
        return (
            f"the learning rate is never lowered: schedule.milestones={tuple(schedule.milestones)} lie beyond "
            f"train.steps={steps}; to lower it, give --config.schedule.milestones="
            f"{','.join(map(str, milestones(steps // 2, steps * 3 // 4)))}"
        )
    if schedule.name == "cosine" and schedule.decay_steps > steps:
        return (
            f"the learning rate does not reach 0: schedule.decay_steps={schedule.decay_steps}, train.steps={steps}; "
            f"to reach it, give --config.schedule.decay_steps={steps}"
        )
    if schedule.warmup_steps and schedule.warmup == "constant" and schedule.warmup_learning_rate > rate:
        return (
            f"the warm-up is faster than the training: schedule.warmup_learning_rate={schedule.warmup_learning_rate} "
            f"for {schedule.warmup_steps} steps, optimizer.learning_rate={rate}; to do without it, give "
            f"--config.schedule.warmup_steps=0"
        )
    return ""


_said: set[str] = set()


def warn_once(config: ConfigDict, say: Callable[[str], None]) -> None:
    """Passes a run's :func:`schedule_warning` to ``say``, once in a process: runs of a sweep would all repeat it."""
    warning = schedule_warning(config)
    if warning and warning not in _said:
        _said.add(warning)
        say(warning)


def _piecewise(rate: Array, schedule: Mapping[str, Any]) -> optax.Schedule:
    def at(step: Array) -> Array:
        value, milestones, factor = rate, schedule["milestones"], schedule["factor"]
        for i in range(len(milestones)):  # one by one: factor ** n would round differently
            value = jnp.where(step < milestones[i], value, factor * value)
        return value

    return at


def _cosine(rate: Array, schedule: Mapping[str, Any]) -> optax.Schedule:
    def at(step: Array) -> Array:
        last = schedule["decay_steps"]
        return rate * (0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(step, last) / last)))

    return at


# `schedule.name` in a config -> function of the initial rate and that section.
SCHEDULES: Registry[Callable[[Array, Mapping[str, Any]], optax.Schedule]] = Registry(
    "schedule",
    {
        "piecewise": _piecewise,
        "cosine": _cosine,
        "constant": lambda rate, schedule: optax.constant_schedule(rate),
    },
)
