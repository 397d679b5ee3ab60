"""The moving average of the parameters: where it starts, how close it stays, and where earlier commits kept it."""

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
def run(tmp_path_factory):
    """400 steps on the digits from scratch, with a decay of 0.999."""
    workdir = tmp_path_factory.mktemp("average") / "run"
    code, output = finish(train(
        workdir, "--config.optimizer.ema=0.999", "--config.train.steps=400", "--config.train.eval_every=200",
        "--config.data.validation=142", "--config.schedule.milestones=(200,300)",
    ))  # fmt: skip
    assert code == 0, output
    return workdir


@pytest.fixture(scope="module")
def exported(run):
    net, path = model.from_run(run), run.parent / "weights.safetensors"
    tensors = names.to_tensors(net.network, (8, 8, 1), net.variables, "cifar")
    files.write(path, tensors, config.to_json(net.config), net.preprocessing.to_json())
    return path


def test_it_is_close_to_the_parameters_after_400_steps(run):
    """The average was at 90.1% test error, mostly the initial parameters, where these were at 4.2%."""
    final = RunDirectory(run).metrics()[-1]
    assert final["test_error_raw"] < 0.08
    assert abs(final["test_error"] - final["test_error_raw"]) < 0.02
    assert abs(final["validation_error"] - final["validation_error_raw"]) < 0.03


def test_it_starts_from_weights_that_are_loaded(exported, tmp_path):
    """The average was at 90.4% test error throughout: it started from what was drawn before the weights were put in."""
    c = small_config(train__steps=8, train__eval_every=2, train__batch_size=32, optimizer__learning_rate=0.001)
    c.model.width, c.optimizer.ema, c.init.weights = 1.0, 0.999, str(exported)
    loop.run(c, tmp_path / "run")
    evaluated = [line for line in RunDirectory(tmp_path / "run").metrics() if "test_error" in line]
    assert len(evaluated) == 4
    for line in evaluated:
        assert line["test_error_raw"] < 0.1
        assert abs(line["test_error"] - line["test_error_raw"]) < 0.02


def test_nothing_is_derived_from_parameters_that_are_not_final(exported):
    """The average and what an optimizer keeps are of the loaded weights and, for the rest, of those that were drawn."""
    c = small_config(init__weights=str(exported), init__reset_head=True, model__width=1.0)
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


def test_a_checkpoint_holds_it_beside_the_parameters(run):
    there = arrays(run, 400)
    average = {name for name in there if name.startswith("['average']")}
    params = {name for name in there if name.startswith("['params']")}
    assert {name.replace("average", "params", 1) for name in average} == params
    assert not any("average" in name for name in there.keys() - average)
    found = model.from_run(run).variables["params"]["dense"]["kernel"]
    np.testing.assert_array_equal(found, there["['average']['dense']['kernel']"])
    assert not np.array_equal(found, there["['params']['dense']['kernel']"])


def test_a_run_without_it_has_none(tmp_path):
    c = small_config(model__stage_units=(1,), train__steps=4)
    assert not any(name.endswith("_raw") for name in loop.run(c, tmp_path))
    assert not any("average" in name for name in arrays(tmp_path, 4))


def test_it_is_resumed_in_the_same_bits(tmp_path):
    whole, part = (small_config(model__stage_units=(1,), optimizer__ema=0.99, train__steps=n) for n in (8, 4))
    loop.run(whole, tmp_path / "whole")
    loop.run(part, tmp_path / "split")
    loop.run(whole, tmp_path / "split")
    once, again = arrays(tmp_path / "whole", 8), arrays(tmp_path / "split", 8)
    assert once.keys() == again.keys()
    for name in once:
        np.testing.assert_array_equal(once[name], again[name], err_msg=name)


def test_one_inside_the_state_of_the_optimizer_is_found(begun_before):
    """As commit 4cfe0ac saved it; nothing but the checkpoint is asked where it is."""
    workdir = begun_before / "finished_average"
    (workdir / "starts.jsonl").unlink()
    there, found = arrays(workdir, 20), model.from_run(workdir).variables
    kept = {name: array for name, array in there.items() if "average" in name}
    assert len(kept) == len(jax.tree.leaves(found["params"]))
    for path, leaf in jax.tree.leaves_with_path(found["params"]):
        np.testing.assert_array_equal(leaf, kept[f"['opt_state'][1]['average']{jax.tree_util.keystr(path)}"])
    np.testing.assert_array_equal(found["batch_stats"]["stem_bn"]["mean"], there["['batch_stats']['stem_bn']['mean']"])
