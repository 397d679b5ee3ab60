"""Tests of the moving average of the parameters: its start, its accuracy, and where checkpoints hold it."""

import jax
import numpy as np
import optax
import pytest

from resnet_flax import config, model
from resnet_flax.interchange import files, names
from resnet_flax.networks import build
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.training import fine_tuning, loop
from resnet_flax.training.state import initial_state, initial_variables
from tests.commands import arrays, finish, train
from tests.training.small import small_config


@pytest.fixture(scope="module")
def run_of_400_steps(tmp_path_factory):
    """A run on the digits, from random weights, with a decay of 0.999."""
    workdir = tmp_path_factory.mktemp("average") / "run"
    code, output = finish(train(
        workdir, "--config.optimizer.ema=0.999", "--config.train.steps=400", "--config.train.eval_every=200",
        "--config.data.validation=142", "--config.schedule.milestones=(200,300)",
    ))  # fmt: skip
    assert code == 0, output
    return workdir


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("short") / "run"
    loop.run(small_config(optimizer__ema=0.999, train__steps=4), workdir)
    return workdir


def export(run):
    net, path = model.from_run(run), run.parent / "weights.safetensors"
    tensors = names.to_tensors(net.network, (8, 8, 1), net.variables, "cifar")
    files.write(path, tensors, config.to_json(net.config), net.preprocessing.to_json())
    return path


@pytest.mark.slow
def test_the_average_is_close_to_the_parameters_after_400_steps(run_of_400_steps):
    """Regression test: the average had 90.1% test error, mostly initial parameters, while the parameters had 4.2%."""
    final = RunDirectory(run_of_400_steps).metrics()[-1]
    assert final["test_error_raw"] < 0.08
    assert abs(final["test_error"] - final["test_error_raw"]) < 0.02
    assert abs(final["validation_error"] - final["validation_error_raw"]) < 0.03


@pytest.mark.slow
def test_the_average_starts_from_loaded_weights(run_of_400_steps, tmp_path):
    """Regression test: the average had 90.4% test error throughout, because it started from random weights."""
    c = small_config(train__steps=8, train__eval_every=2, train__batch_size=32, optimizer__learning_rate=0.001)
    c.model.width, c.optimizer.ema, c.init.weights = 1.0, 0.999, str(export(run_of_400_steps))
    loop.run(c, tmp_path / "run")
    evaluated = [line for line in RunDirectory(tmp_path / "run").metrics() if "test_error" in line]
    assert len(evaluated) == 4
    for line in evaluated:
        assert line["test_error_raw"] < 0.1
        assert abs(line["test_error"] - line["test_error_raw"]) < 0.02


def test_the_average_and_the_optimizer_state_derive_from_the_loaded_weights(run):
    """Both use the loaded weights and, for the head that is reset, the random ones."""
    c = small_config(init__weights=str(export(run)), init__reset_head=True)
    network = build(c.model, 10)
    remembers = optax.GradientTransformation(lambda params: jax.tree.map(lambda p: 2 * p, params), None)
    weights = fine_tuning.load(c, network, (8, 8, 1))
    state = jax.device_get(initial_state(network, remembers, 0, (8, 8, 1), ema=0.9, weights=weights))
    start = fine_tuning.variables_at_start(c, network, (8, 8, 1))
    jax.tree.map(np.testing.assert_array_equal, state.params, start["params"])
    jax.tree.map(np.testing.assert_array_equal, state.average, state.params)
    jax.tree.map(lambda kept, p: np.testing.assert_array_equal(kept, 2 * p), state.opt_state, state.params)
    np.testing.assert_array_equal(state.params["stem_conv"]["kernel"], weights["params"]["stem_conv"]["kernel"])
    drawn = initial_variables(network, 0, (8, 8, 1))["params"]["dense"]["kernel"]
    np.testing.assert_array_equal(state.params["dense"]["kernel"], drawn)


def test_a_checkpoint_holds_the_average_and_the_parameters(run):
    there = arrays(run, 4)
    average = {name for name in there if name.startswith("['average']")}
    params = {name for name in there if name.startswith("['params']")}
    assert {name.replace("average", "params", 1) for name in average} == params
    assert not any("average" in name for name in there.keys() - average)
    found = model.from_run(run).variables["params"]["dense"]["kernel"]
    np.testing.assert_array_equal(found, there["['average']['dense']['kernel']"])
    assert not np.array_equal(found, there["['params']['dense']['kernel']"])


def test_a_run_without_an_average_saves_none(tmp_path):
    c = small_config(model__stage_units=(1,), train__steps=4)
    assert not any(name.endswith("_raw") for name in loop.run(c, tmp_path))
    assert not any("average" in name for name in arrays(tmp_path, 4))


def test_an_average_inside_the_optimizer_state_is_found(begun_before):
    """Commit 4cfe0ac saved it there; only the checkpoint itself tells where it is."""
    workdir = begun_before / "finished_average"
    (workdir / "starts.jsonl").unlink()
    there, found = arrays(workdir, 20), model.from_run(workdir).variables
    kept = {name: array for name, array in there.items() if "average" in name}
    assert len(kept) == len(jax.tree.leaves(found["params"]))
    for path, leaf in jax.tree.leaves_with_path(found["params"]):
        np.testing.assert_array_equal(leaf, kept[f"['opt_state'][1]['average']{jax.tree_util.keystr(path)}"])
    np.testing.assert_array_equal(found["batch_stats"]["stem_bn"]["mean"], there["['batch_stats']['stem_bn']['mean']"])
