"""Tests of a user's file with a unit, a data set and a metric, which commands run only if they are told to."""

import hashlib
import importlib
import json
import linecache
import os
import re
import sys
from types import SimpleNamespace

import jax
import pytest

from resnet_flax import api, config, model, model_evaluation
from resnet_flax.data.datasets import DATASETS
from resnet_flax.errors import UserError
from resnet_flax.launchers.attempt import attempt
from resnet_flax.networks.initialization import INITIALIZATIONS
from resnet_flax.networks.units import UNITS
from resnet_flax.runs import resume
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.source_code import checksum
from resnet_flax.sweeps.cases import Case
from resnet_flax.sweeps.experiment import Experiment, Findings
from resnet_flax.tracking.tracker import TENSORBOARD_ALONE
from resnet_flax.training import loop, metric_functions
from resnet_flax.training.readiness import Readiness
from resnet_flax.training.schedule import SCHEDULES
from tests.commands import command, lines
from tests.experiments import folders
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


@pytest.mark.parametrize(
    ("module", "hint"),
    [
        ("", "--module=FILE if you define it"),
        ("/a/unit.py", "/a/unit.py defined it in training: --module=/a/unit.py"),
        ("/a/u.py,/a b/m.py", "/a/u.py or /a b/m.py defined it in training: --module=/a/u.py --module='/a b/m.py'"),
    ],
)
def test_an_unknown_name_asks_for_its_files(module, hint):
    c = config.load("configs/digits.py", "residual-8", {"model.unit": "tenfold", "module": module})
    with pytest.raises(UserError) as refusal:
        config.validate(c)
    assert str(refusal.value).endswith(f"; {hint}")


@pytest.mark.parametrize("module", ["__main__", "of_no_file"])
def test_a_unit_of_a_notebook_trains_and_has_no_file(monkeypatch, module, tmp_path):
    unit = type("TenthUnit", (UNITS["residual"],), {"__module__": module})
    monkeypatch.setitem(UNITS, "tenth", unit)
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    c = small_config(model__unit="tenth", model__stage_units=(1,), train__steps=2)
    assert loop.run(c, tmp_path / "run")["step"] == 2
    assert json.loads((tmp_path / "run" / "config.json").read_text())["module"] == ""


def test_the_key_module_is_no_flag():
    code, output = command("train.py", "--config=digits:plain-8", "--workdir=x", "--config.module=mine.py")
    assert (code, output) == (2, "error: --config.module: training records this key; use --module=FILE\n")
    assert "\n  module=" not in config.keys_in_help("config")


def test_an_error_in_a_unit_ends_with_its_line(tmp_path):
    """The traceback comes before it. The network is traced before anything is trained."""
    bad = tmp_path / "bad.py"
    bad.write_text(UNIT.replace("self.branch", "self.brnch"))
    code, output = command(
        "train.py", "--config=digits:own-8", f"--workdir={tmp_path}/run", f"--module={bad}", "--config.train.steps=1"
    )
    traced, last = output.splitlines()[:-1], output.splitlines()[-1]
    assert (code, last) == (2, f"error: --module={bad}, line 10: AttributeError: \"OwnUnit\" object has no attribute "
                               f"\"brnch\" (the traceback above shows how it was called)")  # fmt: skip
    assert "Traceback (most recent call last):" in traced
    assert not list((tmp_path / "run").glob("checkpoints/*"))


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
        f"measures per-example metrics\n"
    )
    execute("1.0")
    remark = (
        f"{run}: {file} has changed since the start at step 0; unless only comments did, this run's results are not "
        f"those of the code as it is now: to have them, choose a new run directory\n"
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


def test_a_file_is_executed_as_it_is_now(tmp_path, monkeypatch):
    """Regression test: cached bytecode was executed for another text of equal length and time."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = tmp_path / "mine.py"
    for value in (1, 2):
        file.write_text(f"VALUE = {value}\n")
        os.utime(file, (1e9, 1e9))
        assert value == config.execute(str(file), "module").VALUE
    assert list(tmp_path.iterdir()) == [file]


def test_an_imported_file_has_the_checksum_of_the_text_that_was_executed(own_unit, tmp_path, monkeypatch):
    """Regression test: it had that of the file at the start of the run, which may be another text by then."""
    file = tmp_path / "imported_unit.py"
    file.write_text(UNIT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "imported_unit", None)  # removed after the test
    del sys.modules["imported_unit"]
    importlib.import_module("imported_unit")
    file.write_text(UNIT.replace("0.1", "0.5"))
    assert config.checksums(own_config()) == {"model.unit=own": hashlib.sha256(UNIT.encode()).hexdigest()}


def execute_cell(text, name):
    """Executes a text as a notebook does: without a file, and with its lines in linecache unless the name is empty."""
    if name:
        linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
    exec(compile(text, name or "<stdin>", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("name", ["cell", ""])
def test_a_changed_unit_of_a_notebook_is_named(monkeypatch, tmp_path, name):
    """Regression test: a finished run of the old code was returned as one of the new code, without a word."""
    monkeypatch.setitem(UNITS, "own", None)  # restored after the test
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    run, c = RunDirectory(folders.run(tmp_path / "run", folders.config("residual-8"))), own_config()
    execute_cell(UNIT, name and "<cell 1>")
    run.record_start(0, 1, 10, {}, own_code=config.checksums(c))
    execute_cell(f"# another place\n\n{UNIT}", name and "<cell 2>")
    assert list(config.checksums(c)) == ["model.unit=own"]
    assert resume.remarks(run, c) == []
    execute_cell(UNIT.replace("0.1", "0.5"), name and "<cell 3>")
    assert resume.remarks(run, c) == [
        f"{run.path}: model.unit=own, defined in a notebook, has changed since the start at step 0; unless only "
        f"comments did, this run's results are not those of the code as it is now: to have them, choose a new run "
        f"directory"
    ]
    assert config.defining_files(config.flatten(c)) == ""


def test_code_that_wraps_a_library_and_values_in_tuples_have_steady_checksums(monkeypatch):
    """Regression test: a wrapped function that is not Python's was an error, and an object's address a change."""
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    wrapped = exec_cell_entry("import functools, numpy\nentry = functools.wraps(numpy.sin)(lambda x: x)")
    assert len(checksum(wrapped)) == 64
    text = "class entry:\n    inits = (object(),)\n    width = (1, 2)\n    def __call__(self): return 1"
    assert checksum(exec_cell_entry(text)) == checksum(exec_cell_entry(text))
    assert checksum(exec_cell_entry(text)) != checksum(exec_cell_entry(text.replace("(1, 2)", "(1, 3)")))


def exec_cell_entry(text):
    """Executes a cell without text in linecache, as at a prompt, and returns what it defines as ``entry``."""
    names = {"__name__": "__main__"}
    exec(compile(text, "<stdin>", "exec"), names)
    return names["entry"]


def test_a_sweep_names_the_line_of_an_error_in_a_unit(own_unit, tmp_path):
    execute, file = own_unit
    execute("1 / 0")
    failure, reason = attempt(own_config(), tmp_path / "run", TENSORBOARD_ALONE)
    crash = tmp_path / "run" / "crash.txt"
    assert failure == "crashed"
    assert reason == f"--module={file}, line 10: ZeroDivisionError: division by zero (see {crash})"


def test_a_sweep_names_runs_of_a_file_as_it_was(own_unit, tmp_path, capsys):
    """Otherwise a row would be the mean of what two versions of a file compute, without a word."""
    execute, _ = own_unit
    small = {"model.unit": "own", "model.width": 0.25, "train.steps": 4, "train.batch_size": 16}
    cases = [Case("", {"schedule.milestones": (2, 3), **small}, "own")]
    sweep = Experiment("Own", "How?", cases=lambda request: cases, findings=lambda results: Findings())
    sweep.carry_out(tmp_path, "configs/digits.py:plain-8", seeds=(0,))
    assert "has changed" not in capsys.readouterr().out
    execute("1.0")
    sweep.carry_out(tmp_path, "configs/digits.py:plain-8", seeds=(0,))
    note = "Your own code has changed since these runs trained, so their results are not those of the code as it is"
    assert note in capsys.readouterr().out
    assert note in json.loads((tmp_path / "experiment.json").read_text())["notes"][0]
    with pytest.raises(UserError, match="is the folder of an experiment; choose another one for a single run"):
        loop.run(own_config(), tmp_path)
    (run,) = (tmp_path / "runs").iterdir()
    with pytest.raises(UserError, match="is the directory of a run; choose another one for an experiment"):
        sweep.carry_out(run, "configs/digits.py:plain-8", seeds=(0,))


def test_a_file_that_is_not_executed_stays_recorded(own_unit):
    _, file = own_unit
    found = config.resolve(own_config(train__metrics="of_another_file", module="/a/metric.py")).module
    assert found == f"{file},/a/metric.py"
    assert config.resolve(own_config(module="/a/metric.py")).module == str(file)


@pytest.mark.parametrize("name", INITIALIZATIONS)
def test_a_function_of_a_library_is_no_code_of_the_users(name):
    """Regression test: runs recorded the file of jax's initializer in their key module."""
    assert config.resolve(small_config(model__initialization=name)).module == ""


METRIC = """
import jax.numpy as jnp
from resnet_flax.training.metric_functions import of_examples, of_steps


@of_examples
def brightness(logits, batch):
    return batch["images"].mean((1, 2, 3))
"""


@pytest.fixture
def metrics(tmp_path, monkeypatch):
    """A function that executes lines that define metrics, and returns the file's path."""
    for registry in (metric_functions.OF_EXAMPLES, metric_functions.OF_STEPS):
        for name in ("brightness", "wrong"):
            monkeypatch.setitem(registry, name, None)
            del registry[name]

    def execute(text):
        (tmp_path / "metric.py").write_text(METRIC + text)
        config.execute(str(tmp_path / "metric.py"), "module")
        return tmp_path / "metric.py"

    return execute


def test_a_metric_has_the_networks_input_in_training_and_evaluation(metrics, tmp_path, capfd):
    file, run = metrics(""), tmp_path / "run"
    size = {"model__stage_units": (1,), "train__steps": 2, "train__eval_train": True}
    last = loop.run(small_config(**size, train__metrics="brightness", data__pad=0, data__flip=False), run)
    assert abs(last["test_brightness"]) < 0.1  # normalised
    assert abs(last["train_brightness"]) < 0.5
    assert last["train_brightness"] != 0
    assert api.open_run(run).evaluate().mean("brightness") == pytest.approx(last["test_brightness"])
    assert "not measured here" not in capfd.readouterr().err
    del metric_functions.OF_EXAMPLES["brightness"]
    api.open_run(run).evaluate()
    line = f"not measured here: brightness, which train.metrics names; {file} defined it in training: --module={file}"
    assert line in capfd.readouterr().err.splitlines()


def test_views_with_a_metric_of_images_are_refused_before_the_first_photograph(metrics):
    """Regression test: they were after the last one, and all scores were lost."""
    metrics("")
    net = SimpleNamespace(network=SimpleNamespace(classes=10))
    with pytest.raises(UserError, match=r"metric 'brightness' uses batch\['images'\]"):
        model_evaluation._evaluate_views(net, None)  # without photographs


@pytest.mark.parametrize(
    ("decorator", "result", "message"),
    [
        ("of_examples", "jnp.mean(a)", "returned shape (); a per-example metric returns one number per example, shape"),
        ("of_examples", "a", "returned shape (32, 10); a per-example metric returns one number per example, "),
        ("of_examples", "1.0", "returned a value of type float; a per-example metric returns one number"),
        ("of_examples", "b['mask']", "uses batch['mask']; here the batch has images and labels"),
        ("of_steps", "jnp.ones(3)", "returned shape (3,); a per-step metric returns a number, shape (), or a dict of"),
        ("of_steps", "{'stem': jnp.ones(3)}", "returned shape (3,); a per-step metric returns a number, shape (), or"),
        ("of_steps", "[jnp.ones(())]", "returned a value of type list; a per-step metric returns a number"),
        ("of_steps", "{}", "returned a value of type dict; a per-step metric returns a number"),
    ],
    ids=lambda text: text if len(text) < 25 else "",
)  # fmt: skip
def test_a_metric_of_the_wrong_shape_is_refused_before_the_first_step(metrics, tmp_path, decorator, result, message):
    metrics(f"\n@{decorator}\ndef wrong(a, b, c=None):\n    return {result}\n")
    c = small_config(model__stage_units=(1,), train__metrics="wrong", train__batch_size=32)
    for start in (
        lambda: Readiness(jax.device_count()).check(config.resolve(c), tmp_path / "run"),
        lambda: loop.run(c, tmp_path / "run"),
    ):
        with pytest.raises(UserError, match=re.escape(f"metric 'wrong' {message}")):
            start()
    assert not list((tmp_path / "run").glob("checkpoints/*"))


@pytest.mark.parametrize("name", ["one-cycle", "1cycle", "x" * 60])
def test_a_name_that_a_run_directory_cannot_hold_is_refused(name):
    """Regression test: the run's own config.json was refused after compiling."""
    with pytest.raises(ValueError, match=f"^'{name}' cannot be the name of your schedule; choose at most 51 letters, "):
        SCHEDULES[name] = None
    with pytest.raises(ValueError, match="^'my images' cannot be the name of your data set; choose "):
        DATASETS["my images"] = None


OWN_METRIC = "@of_examples\ndef {}(logits, batch): ..."
OWN_STEPS = "@of_steps\ndef {}(gradients, params, updates): ..."


@pytest.mark.parametrize(
    ("name", "kind", "definition"),
    [
        *((name, "metric", OWN_METRIC) for name in ("loss", "error_clean", "images", "gradient_norm", "error_raw")),
        *((name, "metric", OWN_STEPS) for name in ("step", "learning_rate", "train_error", "top5_error")),
        ("cutout", "augmentation", "@augmentation\ndef {}(image, key): ..."),
        ("digits", "data set", "@register('{}')\ndef own(data): ..."),
        ("residual", "unit", "UNITS['{}'] = object"),
        ("sgd", "optimizer", "OPTIMIZERS['{}'] = object"),
    ],
)
def test_a_name_of_the_projects_own_is_reserved(tmp_path, name, kind, definition):
    """A run of a replaced unit would look like a run of the project's."""
    file = tmp_path / "mine.py"
    start = (
        "from resnet_flax.data.datasets import register\nfrom resnet_flax.data.transforms import augmentation\n"
        "from resnet_flax.networks.units import UNITS\nfrom resnet_flax.training.optimizer import OPTIMIZERS\n"
        "from resnet_flax.training.metric_functions import of_examples, of_steps\n\n"
    )
    file.write_text(start + definition.format(name))
    message = rf"^--module={file}, line \d: ValueError: '{name}' is reserved; choose another name for your {kind}$"
    with pytest.raises(UserError, match=message):
        config.execute(str(file), "module")
