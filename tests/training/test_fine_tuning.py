"""Tests of runs that start from weights: what comes from the file, what is random, and what is trained."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_flax import config, model
from resnet_flax.errors import UserError
from resnet_flax.interchange import files, names
from resnet_flax.networks import build
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.training import fine_tuning, loop
from resnet_flax.training import optimizer as optimizers
from resnet_flax.training.state import initial_state
from resnet_flax.training.step import training_step
from tests.commands import command
from tests.training.small import small_config


def tiny_config(**overrides):
    return small_config(**{"model__stage_units": (2,), "train__steps": 4, "train__bn_group": 0} | overrides)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A file with the weights of a run, and the model of that run."""
    folder = tmp_path_factory.mktemp("before")
    loop.run(tiny_config(model__bn_epsilon=2e-5), folder / "run")
    net = model.from_run(folder / "run")
    tensors = names.to_tensors(net.network, (8, 8, 1), net.variables, "cifar")
    path = folder / "weights.safetensors"
    files.write(path, tensors, config.to_json(net.config), net.preprocessing.to_json())
    return path, net


def trained(workdir, **overrides):
    """Trains with almost no learning rate, so that the final weights are the initial ones; returns the model."""
    c = tiny_config(train__steps=1, optimizer__learning_rate=1e-12, **overrides)
    loop.run(c, workdir)
    return model.from_run(workdir)


def test_training_starts_from_the_weights_and_takes_their_settings(exported, tmp_path, capfd):
    path, before = exported
    found = trained(tmp_path / "run", init__weights=str(path))
    assert found.config.model.bn_epsilon == 2e-5
    assert "sets model.bn_epsilon=2e-05" in capfd.readouterr().err
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found.variables["params"], before.variables["params"]
    )
    not_adopted = trained(tmp_path / "own", init__weights=str(path), init__adopt=False)
    assert not_adopted.config.model.bn_epsilon == 1e-5


def test_a_reset_head_is_drawn_from_the_seed(exported, tmp_path):
    path, before = exported
    found = trained(tmp_path / "reset", init__weights=str(path), init__reset_head=True, seed=3)
    fresh = trained(tmp_path / "fresh", seed=3)
    np.testing.assert_allclose(
        found.variables["params"]["dense"]["kernel"], fresh.variables["params"]["dense"]["kernel"], atol=1e-6
    )
    np.testing.assert_allclose(
        found.variables["params"]["stem_conv"]["kernel"], before.variables["params"]["stem_conv"]["kernel"], atol=1e-6
    )


def test_a_run_resumes_without_the_file_of_weights(exported, tmp_path):
    """A run that stops at step 4 of 8 and resumes without the file has the metrics of an uninterrupted run."""
    copy = shutil.copy(exported[0], tmp_path / "weights.safetensors")
    whole = tiny_config(train__steps=8, init__weights=str(copy))
    loop.run(whole, tmp_path / "whole")
    loop.run(tiny_config(init__weights=str(copy)), tmp_path / "split")
    copy.unlink()
    loop.run(whole, tmp_path / "split")
    first, second = (
        [(line["step"], line["train_loss"]) for line in RunDirectory(tmp_path / name).metrics()]
        for name in ("whole", "split")
    )
    assert first == second
    with pytest.raises(UserError, match=r"init\.weights=.*there is no such file"):
        loop.run(whole, tmp_path / "new")


def test_weights_that_do_not_fit_are_refused(exported, tmp_path):
    with pytest.raises(UserError, match="does not fit cifar residual-8: missing: "):
        loop.run(tiny_config(model__stage_units=(3,), init__weights=str(exported[0])), tmp_path / "deeper")
    # Nothing was written, so the corrected command can use the folder.
    assert [p.name for p in (tmp_path / "deeper").iterdir()] == [".lock"]
    with pytest.raises(UserError, match="no effect without weights to start from"):
        loop.run(tiny_config(init__reset_head=True), tmp_path / "none")


def test_layers_that_do_not_fit_are_refused_before_anything_is_written(tmp_path):
    """Regression test: a traceback after config.json was written, so the corrected command was refused."""
    narrowing = {"model__stage_units": (1, 1, 1), "model__stage_filters": (32, 16, 8), "train__steps": 1}
    with pytest.raises(UserError, match=r"^residual-8: option A cannot narrow 8 channels to 4; choose model.shortcut"):
        loop.run(small_config(**narrowing), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    loop.run(small_config(model__shortcut="B", **narrowing), tmp_path)


def test_weights_of_other_units_are_remarked_on(exported, tmp_path, capfd):
    """Regression test: an exported file says its unit, but residual weights started a plain network without a word."""
    residual, plain = (
        config.resolve(tiny_config(model__unit=unit, init__weights=str(exported[0]))) for unit in ("residual", "plain")
    )
    fine_tuning.load(residual, build(residual.model, 10), (8, 8, 1))
    assert capfd.readouterr().err == ""
    fine_tuning.load(plain, build(plain.model, 10), (8, 8, 1))
    said = "of a network with model.unit=residual; model.unit=plain gives other logits"
    assert capfd.readouterr().err == f"{exported[0]}: {said}\n"


def test_a_frozen_network_trains_its_head_alone():
    """All other parameters and BN's statistics stay bit-identical, despite weight decay, and the loss still falls."""
    c = config.load("configs/digits.py", "residual-8")
    c.optimizer.trainable, c.optimizer.weight_decay = "head", 0.1
    network = build(c.model, 10).clone(frozen=True)
    optimizer = optimizers.build(c.optimizer, lambda step: 0.05)
    start = state = initial_state(network, optimizer, 0, (8, 8, 1))
    momenta = [leaf for leaf in jax.tree.leaves(start.opt_state) if leaf.ndim]
    assert sum(leaf.size for leaf in momenta) == 64 * 10 + 10
    rng = np.random.default_rng(0)
    images, labels = jnp.asarray(rng.standard_normal((16, 8, 8, 1)), jnp.float32), jnp.asarray(rng.integers(0, 10, 16))
    step = jax.jit(lambda s: training_step(s, images, labels, network=network, optimizer=optimizer))
    losses = []
    for _ in range(6):
        before = state
        state = step(state)
        losses.append(float(state.sums["loss"] - before.sums["loss"]))
    assert losses[-1] < losses[0]
    jax.tree.map(np.testing.assert_array_equal, state.batch_stats, start.batch_stats)
    params, first = dict(state.params), dict(start.params)
    assert not np.array_equal(params.pop("dense")["kernel"], first.pop("dense")["kernel"])
    jax.tree.map(np.testing.assert_array_equal, params, first)


def test_a_plan_that_takes_settings_from_weights_starts_no_devices(exported, tmp_path):
    """With --launcher=ray, they are for the workers."""
    program = (
        "from pathlib import Path; from jax._src import xla_bridge\n"
        "from resnet_flax.sweeps.cases import Case, Request; from resnet_flax.sweeps.plan import plan\n"
        f"weights = {{'init.weights': {str(exported[0])!r}}}\n"
        "[run] = plan([Case('residual-8')], Request('configs/digits.py', Path('x'), Path('x'), overrides=weights))\n"
        "print(run.config.model.bn_epsilon, xla_bridge.backends_are_initialized())"
    )
    code, output = command("-c", program)
    assert code == 0, output
    assert "sets model.bn_epsilon=2e-05" in output
    assert output.splitlines()[-1] == "2e-05 False"
