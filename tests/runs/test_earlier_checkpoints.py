"""Checkpoints in the formats of earlier commits can be evaluated and resumed with the same bits."""

import jax
import numpy as np
import pytest

from resnet_flax import model
from resnet_flax.runs import trees
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.training import loop
from resnet_flax.training import optimizer as optimizers
from tests.commands import arrays, lines
from tests.marks import slow


def without_optimizer(monkeypatch):
    """Makes every later attempt to build an optimizer fail."""
    monkeypatch.setattr(optimizers, "build", None)


@pytest.mark.parametrize("name", ["momentum", "average"])
def test_the_variables_are_restored_without_an_optimizer(begun_with_items, monkeypatch, name):
    """The average is restored if there is one, and every array equals the one that plain orbax reads."""
    without_optimizer(monkeypatch)
    found = trees.names(model.from_run(begun_with_items / name).variables)
    saved = arrays(begun_with_items / name, 6)
    for array, value in found.items():
        keys = array.split("/")
        if name == "average" and keys[0] == "params":
            keys[0] = "average"
        np.testing.assert_array_equal(value, saved["".join(f"['{key}']" for key in keys)])
    assert any("['average']" in key for key in saved) == (name == "average")


@pytest.mark.parametrize("name", ["finished", "finished_average"])
def test_the_variables_are_restored_from_checkpoints_without_checksums(begun_before, monkeypatch, name):
    """Such checkpoints keep the average in the optimizer's state."""
    without_optimizer(monkeypatch)
    found = trees.names(model.from_run(begun_before / name).variables)
    saved = arrays(begun_before / name, 20)
    place = "['opt_state'][1]['average']" if name == "finished_average" else "['params']"
    for array, value in found.items():
        kind, *keys = array.split("/")
        where = place if kind == "params" else "['batch_stats']"
        np.testing.assert_array_equal(value, saved[where + "".join(f"['{key}']" for key in keys)])


@pytest.mark.parametrize("name", [slow("momentum"), "average"])
def test_a_run_with_earlier_checkpoints_is_resumed(begun_with_items, capfd, name):
    """The metrics are those of the uninterrupted run, with the same bits on the machine that began it."""
    workdir = begun_with_items / name
    whole = workdir / "metrics.jsonl"
    (workdir / "whole.jsonl").replace(begun_with_items / "metrics.jsonl")
    last = loop.run(RunDirectory(workdir).config(), workdir)
    assert "resuming at step 6 of 12" in capfd.readouterr().err
    assert last["step"] == 12
    ours, theirs = lines(workdir), lines(begun_with_items)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    assert whole.is_file()
    for line, other in zip(ours, theirs, strict=True):
        assert line.keys() == other.keys()
        for key, value in line.items():
            assert value == pytest.approx(other[key], rel=1e-4), (line["step"], key)
    assert jax.tree.leaves(arrays(workdir, 12))
