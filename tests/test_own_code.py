"""Tests of a user's file with a unit, a data set and a metric, which commands run only if they are told to."""

import json
import sys

import pytest

from resnet_flax import config, model
from resnet_flax.errors import UserError
from resnet_flax.networks.units import UNITS
from resnet_flax.training import loop
from tests.commands import command, lines
from tests.training.small import small_config

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


UNIT = """
from flax import linen as nn

from resnet_flax.networks.units import UNITS, Unit


class OwnUnit(Unit):
    @nn.compact
    def __call__(self, x, train):
        return nn.relu(0.1 * self.branch(x, train) + self.shortcut(x, train))


UNITS["own"] = OwnUnit
"""


@pytest.fixture
def own_unit(tmp_path, monkeypatch):
    """A function that writes the file of a unit, with another factor, and executes it; the path of the file."""
    monkeypatch.setitem(UNITS, "own", None)  # restored after the test
    file = tmp_path / "own_unit.py"

    def execute(factor):
        file.write_text(UNIT.replace("0.1", factor))
        config.execute(str(file), "module")

    execute("0.1")
    return execute, file


def own_config(**overrides):
    """A config of the unit, with one stage of two units."""
    of_unit = {"model__unit": "own", "model__stage_units": (2,), "train__steps": 4, "train__eval_every": 8}
    return small_config(**of_unit | overrides)


def test_a_changed_file_is_named_when_its_run_resumes_is_finished_or_is_evaluated(own_unit, tmp_path, capfd):
    execute, file = own_unit
    run = tmp_path / "run"
    loop.run(own_config(), run)
    execute("0.1")  # the same content
    loop.run(own_config(), run)
    model.from_run(run)
    assert f"{file}" not in capfd.readouterr().err
    file.write_text("not executed")
    loop.run(own_config(train__metrics="top5_error"), run)
    error = capfd.readouterr().err
    assert f"{file}" not in error
    assert error.endswith(
        f"{run}: its metrics.jsonl lacks top5_error, which train.metrics did not name while the run trained; evaluate "
        f"measures metrics of examples\n"
    )
    execute("1.0")
    remark = (
        f"{run}: {file} has changed since the start at step 0; unless only comments did, this run's results are not "
        f"those of the file as it is now: to have them, choose a new run directory\n"
    )
    loop.run(own_config(), run)
    assert capfd.readouterr().err.endswith(f"already finished, at step 4\n{remark}")
    model.from_run(run)
    assert capfd.readouterr().err == remark
    loop.run(own_config(train__steps=6), run)
    error = capfd.readouterr().err
    assert f"resuming at step 4 of 6\n{remark}" in error
    assert "last bits" not in error
    execute("0.1")
    model.from_run(run)
    assert capfd.readouterr().err == remark.replace("step 0", "step 4")
    starts = [json.loads(line) for line in (run / "starts.jsonl").read_text().splitlines()]
    assert all(list(start.pop("own_code")) == ["model.unit=own"] for start in starts)
    (run / "sums.json").unlink()  # as an earlier version left it
    (run / "starts.jsonl").write_text("".join(json.dumps(start) + "\n" for start in starts))
    model.from_run(run)
    assert not capfd.readouterr().err
