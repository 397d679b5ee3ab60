"""The numbers of a recipe are arguments of the step, so that runs that differ in them share a compiled one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from resnet_flax import config
from resnet_flax.training import optimizer as optimizers
from resnet_flax.training.recipe import Recipe

SHAPES = {"conv": {"kernel": (3, 4)}, "bn": {"scale": (4,)}}


def recipe(**keys):
    c = config.base()
    c.update_from_flattened_dict({name.replace("__", "."): value for name, value in keys.items()})
    return Recipe(config.resolve(c))


def parameters(optimizer_of, numbers=None):
    """After 12 steps in a compiled loop with the optimizer of these numbers, which are its argument."""
    rng = np.random.default_rng(0)
    draw = lambda: jax.tree.map(  # noqa: E731
        lambda shape: rng.standard_normal(shape).astype(np.float32), SHAPES, is_leaf=lambda x: isinstance(x, tuple)
    )
    params, gradients = draw(), draw()

    def steps(params, gradients, numbers):
        optimizer = optimizer_of(numbers)

        def step(i, carried):
            params, state = carried
            updates, state = optimizer.update(jax.tree.map(lambda g: g * (1 + i), gradients), state, params)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, 12, step, (params, optimizer.init(params)))

    return jax.jit(steps)(params, gradients, numbers)


@pytest.mark.parametrize("momentum_form", ["gradient", "update"])
@pytest.mark.parametrize("milestones", [(), (4, 9)])
def test_sgd_has_the_bits_of_optaxs_schedule_with_constants(momentum_form, milestones):
    made = recipe(optimizer__momentum_form=momentum_form, schedule__milestones=milestones)
    theirs = optax.piecewise_constant_schedule(0.1, dict.fromkeys(milestones, 0.1))
    constants = parameters(lambda _: optimizers.build(made.config.optimizer, theirs))
    jax.tree.map(np.testing.assert_array_equal, parameters(made.optimizer, made.numbers), constants)


@pytest.mark.parametrize(
    "keys",
    [
        {"schedule__name": "cosine", "schedule__decay_steps": 12},
        {"schedule__warmup_steps": 5, "schedule__warmup": "linear", "schedule__milestones": (8,)},
        {"optimizer__name": "adamw", "optimizer__weight_decay": 0.05},
        {"optimizer__name": "lars", "optimizer__nesterov": True},
        {"optimizer__weight_decay": 0.0, "optimizer__momentum": 0.0},
    ],
)
def test_other_recipes_are_the_same_to_rounding(keys):
    made = recipe(**keys)
    given, own = parameters(made.optimizer, made.numbers), parameters(made.optimizer)
    # 1 - beta2 is a thousandth, the difference of two numbers near 1: in float32 it is right to 1e-5. Each of twelve
    # steps of adamw changes a parameter by the rate, 0.1.
    tolerance = 1e-5 if made.config.optimizer.name == "adamw" else 1e-6
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), given, own)
    assert jax.tree.structure(given) == jax.tree.structure(own)  # no number is part of the state


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_are_those_of_the_config_in_the_parameters_precision(dtype):
    numbers = recipe(model__param_dtype=dtype, model__dtype=dtype, schedule__warmup_steps=400).numbers
    assert numbers["optimizer.learning_rate"] == np.asarray(0.1, dtype)
    assert {name: array.dtype.name for name, array in numbers.items() if array.dtype != dtype} == {
        "schedule.milestones": "int32", "schedule.warmup_steps": "int32",
    }  # fmt: skip
    np.testing.assert_array_equal(numbers["schedule.milestones"], [32_000, 48_000])


def test_schedules_are_optaxs():
    """Written out here, since optax's own compare their numbers in Python."""
    steps = jnp.arange(0, 130, 7)
    piecewise = recipe(schedule__milestones=(21, 60), schedule__factor=0.3)
    cosine = recipe(schedule__name="cosine", schedule__decay_steps=100)
    for made, theirs in (
        (piecewise, optax.piecewise_constant_schedule(0.1, {21: 0.3, 60: 0.3})),
        (cosine, optax.cosine_decay_schedule(0.1, 100)),
    ):
        ours = jax.vmap(made.rate(made.numbers))(steps)
        np.testing.assert_allclose(ours, jax.vmap(theirs)(steps), rtol=1e-6, atol=1e-9)


def test_one_program_for_every_number_and_another_for_another_structure():
    def lowered(**keys):
        made = recipe(**keys)
        gradients = jax.tree.map(np.zeros, SHAPES, is_leaf=lambda x: isinstance(x, tuple))

        def step(params, state, numbers):
            return made.optimizer(numbers).update(gradients, state, params)

        return jax.jit(step).lower(gradients, made.optimizer().init(gradients), made.numbers).as_text()

    of_numbers = dict(optimizer__learning_rate=0.03, optimizer__momentum=0.5, optimizer__weight_decay=0.0,
                      schedule__milestones=(7, 8), schedule__factor=0.5)  # fmt: skip
    assert lowered(**of_numbers) == lowered()
    for keys in (
        {"optimizer__nesterov": True},
        {"optimizer__decay": "kernels"},
        {"schedule__milestones": (1, 2, 3)},
        {"schedule__warmup_steps": 5},
        {"schedule__name": "cosine"},
        {"optimizer__name": "adamw"},
    ):
        assert lowered(**keys) != lowered(), keys
