"""Tests that the numbers of a recipe are arguments of the compiled step, so that runs share it."""

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
    """Returns parameters and state after 12 compiled steps; the numbers are arguments of the program."""
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
def test_sgd_is_bit_identical_to_optax_with_constants(momentum_form, milestones):
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
def test_other_recipes_agree_with_constants_up_to_rounding(keys):
    made = recipe(**keys)
    given, own = parameters(made.optimizer, made.numbers), parameters(made.optimizer)
    # In float32, 1 - beta2 = 0.001 has a relative error of 1e-5, and each of the twelve steps of adamw changes a
    # parameter by the rate, 0.1.
    tolerance = 1e-5 if made.config.optimizer.name == "adamw" else 1e-6
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), given, own)
    assert jax.tree.structure(given) == jax.tree.structure(own)  # no number is part of the state


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_have_the_dtype_of_the_parameters(dtype):
    numbers = recipe(model__param_dtype=dtype, model__dtype=dtype, schedule__warmup_steps=400).numbers
    assert numbers["optimizer.learning_rate"] == np.asarray(0.1, dtype)
    assert {name: array.dtype.name for name, array in numbers.items() if array.dtype != dtype} == {
        "schedule.milestones": "int32", "schedule.warmup_steps": "int32",
    }  # fmt: skip
    np.testing.assert_array_equal(numbers["schedule.milestones"], [32_000, 48_000])


def test_schedules_agree_with_optax():
    """The project has its own schedules because optax's compare numbers in Python."""
    steps = jnp.arange(0, 130, 7)
    piecewise = recipe(schedule__milestones=(21, 60), schedule__factor=0.3)
    cosine = recipe(schedule__name="cosine", schedule__decay_steps=100)
    for made, theirs in (
        (piecewise, optax.piecewise_constant_schedule(0.1, {21: 0.3, 60: 0.3})),
        (cosine, optax.cosine_decay_schedule(0.1, 100)),
    ):
        ours = jax.vmap(made.rate(made.numbers))(steps)
        np.testing.assert_allclose(ours, jax.vmap(theirs)(steps), rtol=1e-6, atol=1e-9)


def test_the_program_depends_on_the_structure_and_not_on_numbers():
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
