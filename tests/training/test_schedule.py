"""Tests of learning-rate schedules at the steps that the paper gives."""

import math
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

from resnet_flax import config
from resnet_flax.registry import Registry
from resnet_flax.training import schedule
from resnet_flax.training.recipe import Recipe
from resnet_flax.training.schedule import learning_rate, schedule_warning, warn_once
from tests.pages import block


def rates(steps, **keys):
    c = config.base()
    c.schedule.update(keys)
    rate = learning_rate(c.optimizer, c.schedule)
    return [float(rate(s)) for s in steps]


def test_the_schedule_of_the_paper():
    """The rate is 0.1, divided by 10 at 32k and 48k steps (section 4.2)."""
    steps = [0, 31_999, 32_000, 47_999, 48_000, 63_999]
    np.testing.assert_allclose(rates(steps), [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-6)


def test_resnet_110_has_a_warm_up_before_the_usual_schedule():
    steps = [0, 399, 400, 31_999, 32_000]
    np.testing.assert_allclose(rates(steps, warmup_steps=400), [0.01, 0.01, 0.1, 0.1, 0.01], rtol=1e-6)


def test_cosine():
    ours = rates([0, 25, 50, 100], name="cosine", decay_steps=100)
    np.testing.assert_allclose(ours, [0.1 * (1 + math.cos(math.pi * t)) / 2 for t in (0, 0.25, 0.5, 1)], atol=1e-8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, ""),
        (
            {"train.steps": 400},
            r"never lowered: schedule.milestones=\(32000, 48000\) lie beyond train.steps=400; "
            "to lower it, give --config.schedule.milestones=200,300$",
        ),
        ({"train.steps": 1}, ""),
        ({"train.steps": 40_000}, ""),
        ({"train.steps": 400, "schedule.name": "constant"}, ""),
        ({"schedule.name": "cosine"}, ""),
        (
            {"schedule.name": "cosine", "schedule.decay_steps": 90_000},
            "not reach 0: schedule.decay_steps=90000, train.steps=64000; to reach it, give "
            "--config.schedule.decay_steps=64000$",
        ),
        ({"schedule.warmup_steps": 400}, ""),
        ({"schedule.warmup_steps": 400, "schedule.warmup": "linear", "optimizer.learning_rate": 0.001}, ""),
        (
            {"schedule.warmup_steps": 400, "optimizer.learning_rate": 0.001},
            "warmup_learning_rate=0.01 for 400 steps, optimizer.learning_rate=0.001; to do without it, give "
            "--config.schedule.warmup_steps=0$",
        ),
        ({"schedule.warmup_steps": 40, "optimizer.learning_rate": 0.001, "train.steps": 400}, "never lowered: "),
    ],
)
def test_a_schedule_that_hardly_fits_the_run_gets_a_warning(given, message):
    c = config.base()
    c.update_from_flattened_dict(given)
    said = schedule_warning(config.resolve(c))
    assert re.search(message, said) if message else said == ""


def test_runs_of_a_process_do_not_repeat_a_warning():
    said = []
    for steps in (333, 333, 222):
        c = config.base()
        c.train.steps = steps
        warn_once(config.resolve(c), said.append)
    assert [re.findall("train.steps=[0-9]+", text) for text in said] == [["train.steps=333"], ["train.steps=222"]]


def test_the_flag_that_the_warning_names_is_accepted(monkeypatch):
    monkeypatch.setattr("sys.argv", ["x", "--c.m=200,300"])  # ml_collections reads it
    assert config.KEYS["schedule.milestones"].parse("200,300") == (200, 300)
    flag = config_flags.DEFINE_config_dict("c", ConfigDict({"m": (1, 2)}), flag_values=(values := flags.FlagValues()))
    values(sys.argv)
    assert flag.value.m == (200, 300)


def test_a_user_can_register_a_schedule(monkeypatch):
    """Uses the example in docs/extending.md. Its numbers are traced, as in the compiled step."""
    monkeypatch.setattr(schedule, "SCHEDULES", Registry("schedule", schedule.SCHEDULES))
    exec(block("def linear("), {"jnp": jnp, "SCHEDULES": schedule.SCHEDULES})
    c = config.base()
    c.schedule.name, c.train.steps = "linear", 200
    recipe = Recipe(config.resolve(c))
    rate = jax.jit(lambda numbers, step: recipe.rate(numbers)(step))
    ours = [float(rate(recipe.numbers, step)) for step in (0, 50, 200, 300)]
    np.testing.assert_allclose(ours, [0.1, 0.075, 0, 0], rtol=1e-6)


@pytest.mark.parametrize("step", [0, 10, 63_999])
def test_constant(step):
    np.testing.assert_allclose(rates([step], name="constant"), [0.1], rtol=1e-6)
