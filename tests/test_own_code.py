"""Tests of a user's file with a unit, a data set and a metric, which commands run only if they are told to."""

import json
import sys

import pytest

from resnet_flax import config
from resnet_flax.errors import UserError
from resnet_flax.networks.units import UNITS
from tests.commands import command, lines

MINE = """
import jax
import numpy as np
from flax import linen as nn

from resnet_flax import config
from resnet_flax.data.datasets import register
from resnet_flax.data.images import Found, Images
from resnet_flax.networks.units import UNITS, Unit
from resnet_flax.training.metric_functions import of_examples


class TenthUnit(Unit):
    @nn.compact
    def __call__(self, x, train):
        return nn.relu(0.1 * self.branch(x, train) + self.shortcut(x, train))


UNITS["tenth"] = TenthUnit


@register("halves", side=8, channels=1, classes=2)
def halves(data):
    images, labels = np.zeros((40, 8, 8, 1), np.uint8), np.arange(40) % 2
    images[labels == 0, :4], images[labels == 1, 4:] = 200, 200
    return Found(Images(images, labels), None, ("above", "below"), where="halves")


@of_examples
def doubt(logits, batch):
    return 1 - jax.nn.softmax(logits).max(-1)


def get_config(name="tenth-8"):
    c = config.load("configs/digits.py", name)
    c.data.update(name="halves", pad=0, normalization="channel")
    c.train.update(metrics="doubt", batch_size=16, steps=4, log_every=2, eval_every=4, checkpoint_every=4)
    return c
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """The file, and the run directory of a run trained with it."""
    folder = tmp_path_factory.mktemp("own")
    file, run = folder / "mine.py", folder / "runs" / "r"
    file.write_text(MINE)
    code, output = command("train.py", f"--config={file}", f"--workdir={run}", "--config.model.width=0.25")
    assert code == 0, output
    return file, run


def test_a_runs_config_records_the_file(mine):
    file, run = mine
    assert json.loads((run / "config.json").read_text())["module"] == str(file)
    assert lines(run)[-1]["test_doubt"] > 0


def test_commands_with_module_run_the_file(mine, tmp_path):
    file, run = mine
    code, evaluated = command("-m", "resnet_flax.evaluate", f"--workdir={run}", f"--module={file}")
    assert code == 0, evaluated
    assert f"test doubt {lines(run)[-1]['test_doubt']:.4f}" in evaluated
    weights = tmp_path / "w.safetensors"
    code, output = command("-m", "resnet_flax.export", f"--workdir={run}", f"--output={weights}", f"--module={file}")
    assert code == 0, output
    code, output = command("-m", "resnet_flax.evaluate", f"--weights={weights}", f"--module={file}")
    assert (code, output.splitlines()[-1]) == (0, evaluated.splitlines()[-1])
    again = f"--config=configs/from_json.py:{run}/config.json"
    code, output = command("train.py", again, f"--workdir={tmp_path}/again", f"--module={file}")
    assert code == 0, output
    assert lines(tmp_path / "again") == lines(run)


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "resnet_flax.evaluate", "--workdir={run}"],
        ["-m", "resnet_flax.export", "--workdir={run}", "--output=w.safetensors"],
        ["-m", "resnet_flax.predict", "--workdir={run}", "notebooks/images"],
        ["train.py", "--config=configs/from_json.py:{run}/config.json", "--workdir={run}/again"],
    ],
    ids=["evaluate", "export", "predict", "train"],
)
def test_commands_without_module_name_the_file_and_do_not_run_it(mine, arguments):
    file, run = mine
    code, output = command(*(a.format(run=run) for a in arguments))
    assert code == 2, output
    last = output.splitlines()[-1]
    assert last.startswith("error: model.unit='tenth' is not known; choose one of plain, ")
    assert last.endswith(f"; {file} defined it in training: --module={file}")


def test_report_and_status_do_not_need_the_file(mine):
    _, run = mine
    for name in ("report", "status"):
        code, output = command("-m", f"experiments.{name}", f"--workdir={run.parent}")
        assert code == 0, output
    assert "tenth-8" in (run.parent / "report.md").read_text()


def test_an_error_in_the_file_is_reported_with_its_line(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("x = 1\ny = x / 0\n")
    code, output = command("-m", "experiments.status", f"--workdir={tmp_path}", f"--module={bad}")
    assert (code, output.splitlines()[-1]) == (
        2, f"error: --module={bad}, line 2: ZeroDivisionError: division by zero",
    )  # fmt: skip
    code, output = command("-m", "experiments.status", f"--workdir={tmp_path}", "--module=nowhere.py")
    assert (code, output.splitlines()[-1]) == (2, "error: --module=nowhere.py: there is no such file")


def test_an_unknown_name_asks_for_its_file():
    c = config.load("configs/digits.py", "residual-8", {"model.unit": "tenfold"})
    with pytest.raises(UserError, match=r"model.unit='tenfold' is not known; choose one of .*; --module=FILE if you"):
        config.validate(c)


@pytest.mark.parametrize("module", ["__main__", "of_no_file"])
def test_a_unit_of_a_notebook_trains_and_has_no_file(monkeypatch, module):
    unit = type("TenthUnit", (UNITS["residual"],), {"__module__": module})
    monkeypatch.setitem(UNITS, "tenth", unit)
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    c = config.load("configs/digits.py", "residual-8", {"model.unit": "tenth"})
    assert config.resolve(c).module == ""
