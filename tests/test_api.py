"""The Python interface: the code in docs/python.md and README.md runs, and a run's properties are right."""

import json
import re

import jax
import numpy as np
import pytest
from PIL import Image

from resnet_flax import api, config
from resnet_flax.errors import UserError
from resnet_flax.evaluation_config import config_of_run
from resnet_flax.reporting import tables
from resnet_flax.runs.directory import RunDirectory
from tests.commands import ROOT, command
from tests.experiments import folders
from tests.pages import README, python_blocks

SMALL = {
    "model.stage_units": (1,), "model.width": 0.25, "train.steps": 8, "train.log_every": 2, "train.eval_every": 4,
    "train.checkpoint_every": 4, "train.batch_size": 16, "data.validation": 100, "schedule.milestones": (4, 6),
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    return api.train(api.load_config(str(ROOT / "configs/digits.py"), "residual-8", SMALL), folder / "runs" / "r8")


def test_the_pages_lines_run(run, tmp_path, monkeypatch):
    """The code of docs/python.md runs, with a smaller network that is already trained."""
    lines = "\n".join(python_blocks(ROOT / "docs" / "python.md"))
    assert lines.count('"residual-20", {') == 1
    lines = re.sub(r'"residual-20", \{.*?\}', f'"residual-8", {SMALL}', lines)
    lines = re.sub(r"overrides=\{.*?\}", f"overrides={SMALL}", lines)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "r20").symlink_to(run.path)
    Image.fromarray(np.full((9, 12), 128, np.uint8)).save(tmp_path / "three.png")
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(lines, scope)
    assert len(scope["frame"]) == len(run.lines) == 4
    assert list(scope["frame"]["step"]) == [2, 4, 6, 8]
    assert sorted(scope["runs"]["optimizer.weight_decay"]) == [1e-4, 1e-4, 1e-2, 1e-2]
    assert set(scope["runs"]["state"]) == {"finished"}
    assert scope["images"].shape == (1, 8, 8, 1)
    assert scope["logits"].shape == (100, 10)
    assert scope["losses"][-1] < scope["losses"][0]  # the page's custom training loop works


def test_the_readmes_lines_run(run, tmp_path, monkeypatch, capsys):
    """The code of README.md runs in a folder without a checkout, with a smaller network that is already trained."""
    (lines,) = python_blocks(README)
    assert lines.count('"residual-20", {"train.steps": 300}') == 1
    lines = lines.replace('"residual-20", {"train.steps": 300}', f'"residual-8", {SMALL}')
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "short").symlink_to(run.path)
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(lines, scope)
    assert capsys.readouterr().out == f"{run.evaluate()}\n"
    assert scope["net"].title == "residual-4"


def test_columns_hold_the_lines_of_the_file(run):
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert run.lines == lines
    assert run.metrics["step"].dtype == np.int64
    for name, column in run.metrics.items():
        assert column.shape == (len(lines),)
        for value, line in zip(column, lines, strict=True):
            assert value == line[name] if name in line else np.isnan(value)


def test_a_run_reports_its_status_and_steps(run):
    assert run.status == "finished"
    assert run.steps == [4, 8]
    assert run.last_step == 8
    errors = {line["step"]: line["validation_error"] for line in run.lines if "validation_error" in line}
    assert run.best_step == min(errors, key=errors.get)
    assert run.config.model.depth == 4
    assert [found.path.name for found in api.open_runs(run.path.parent)] == ["r8"]
    outcome = run.outcome()
    assert (outcome.run.label, outcome.classes, outcome.failure) == ("residual-4", 10, "")
    assert outcome.parameters == sum(a.size for a in jax.tree.leaves(run.model().variables["params"]))


def test_an_outcome_has_the_state_of_the_run(tmp_path):
    """Regression test: an unfinished run had a finished outcome, so tables averaged its last line as its final one."""
    c = folders.config()
    states = {"results": "", "stopped": "interrupted", "lost": "diverged", "broken": "crashed", "now": "running"}
    found = {name: api.Run(folders.run(tmp_path / name, c, steps=None if name == "results" else 90)) for name in states}
    RunDirectory(tmp_path / "lost").write_diverged(91, "the loss is not finite")
    RunDirectory(tmp_path / "broken").write_crash("Traceback\nOSError: it is: broken\n")
    (tmp_path / "early").mkdir()
    RunDirectory(tmp_path / "early").write_config(c)
    states["early"], found["early"] = "not begun", api.Run(tmp_path / "early")
    with RunDirectory(tmp_path / "now").locked():
        outcomes = {name: run.outcome(name) for name, run in found.items()}
    assert {name: outcome.failure for name, outcome in outcomes.items()} == states
    assert (outcomes["lost"].reason, outcomes["broken"].reason) == ("the loss is not finite", "OSError: it is: broken")
    rows = {row[0]: row[2:4] for row in tables.rows(tables.tidy(list(outcomes.values())))}
    assert rows.pop("results") == ("1", "5.00")
    assert rows == {name: (f"1 (1 {state})", "-") for name, state in states.items() if state}


def test_runs_that_cannot_be_read_are_named(tmp_path, capsys):
    for name in ("a", "b"):
        folders.run(tmp_path / "runs" / name, folders.config())
    (tmp_path / "runs" / "a" / "metrics.jsonl").write_text("broken\n{}\n")
    assert [found.path.name for found in api.open_runs(tmp_path / "runs")] == ["b"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: runs/a/metrics.jsonl: is not what a run writes: line 1: ")


def test_a_run_with_a_unit_that_is_not_defined_here_opens(tmp_path):
    c = folders.config()
    c.model.unit = "mine"
    run = api.open_run(folders.run(tmp_path / "run", c, test_error=0.25))
    assert (run.status, run.lines[-1]["test_error"]) == ("finished", 0.25)
    assert (run.outcome().run.label, run.outcome().failure) == ("mine-20", "")
    with pytest.raises(UserError, match="model.unit='mine' is not known"):
        run.model()


def test_an_evaluation_equals_that_of_the_command_and_of_the_run(run):
    result = run.evaluate()
    assert result.error == run.lines[-1]["test_error"]
    code, output = command("-m", "resnet_flax.evaluate", f"--workdir={run.path}")
    assert (code, output.splitlines()[-1]) == (0, f"test {result}")
    assert run.evaluate("validation", step=4).error == run.lines[1]["validation_error"]
    elsewhere = api.load_config(str(ROOT / "configs/digits.py"), "residual-8", SMALL | {"train.eval_batch_size": 7})
    assert run.evaluate(config=elsewhere).errors == result.errors


def test_an_evaluation_with_reestimated_statistics_equals_that_of_the_command(run):
    code, output = command("-m", "resnet_flax.evaluate", f"--workdir={run.path}", "--reestimate_bn")
    assert (code, output.splitlines()[-1]) == (0, f"test {(found := run.evaluate(reestimate_bn=True))}")
    assert found.loss != run.evaluate().loss


def test_predictions_are_the_largest_logits(run):
    net = run.model()
    images = [np.random.default_rng(seed).integers(0, 256, (8, 8), np.uint8) for seed in range(3)]
    logits = net.network.apply(net.variables, net.prepare(images), train=False)
    found = net.predict(images, top=10)
    for row, named in zip(np.asarray(jax.nn.softmax(logits)), found, strict=True):
        assert [int(name) for name, _ in named] == list(np.argsort(-row, kind="stable"))
        np.testing.assert_allclose([p for _, p in named], np.sort(row)[::-1], rtol=1e-5)
    assert [name for name, _ in net.predict(images[0])[0]] == [name for name, _ in found[0][:5]]


def test_a_key_without_effect_is_remarked_on(tmp_path, capsys):
    """The remark comes before anything else: here, before the refusal of a workdir that is a file."""
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file"):
        api.train(api.load_config("digits", "plain-8", {"optimizer.beta1": 0.5}), tmp_path / "file")
    assert "optimizer.beta1 has no effect here: it is used with optimizer.name!=sgd|lars\n" in capsys.readouterr().err


def test_a_key_that_is_changed_in_place_counts_as_set(tmp_path):
    """Regression test: an evaluation ignored it. Keys that follow others do not count, until they are set, too."""
    folders.run(tmp_path / "r", folders.config("residual-20"))
    given, changed = api.load_config("digits", "residual-20", {"data.image_size": 48}), api.load_config("digits")
    changed.data.image_size = 48
    assert config.set_by_user(changed) == config.set_by_user(given) == {"data.image_size"}
    assert config_of_run(tmp_path / "r", changed) == config_of_run(tmp_path / "r", given)
    photographs = api.load_config("imagenet", "residual-50")
    photographs.data.image_size = 160
    assert photographs.data.resize != 256
    assert config.set_by_user(photographs) == {"data.image_size"}
    photographs.data.resize = 170
    assert config.set_by_user(photographs) == {"data.image_size", "data.resize"}


def test_a_mistake_is_reported_in_one_line(run, tmp_path):
    with pytest.raises(UserError, match="no run is there"):
        api.open_run(tmp_path)
    with pytest.raises(UserError, match="there is no such folder"):
        api.open_runs(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"--step=7: choose 'latest', 'best', or one of 4, 8"):
        run.model(7)
    with pytest.raises(UserError, match="holds another network than --config names: model.depth: 4 there, 20 now"):
        run.evaluate(config=api.load_config(str(ROOT / "configs/digits.py"), "residual-20"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 8}, "'Plain against residual networks' has no setting 'depth'; choose from depths, units"),
        ({"depths": 8}, "depths=8 must be a list, such as (20, 56)"),
        ({"depths": (8, "20")}, "depths=(8, '20') must be of type int, and '20' is not"),
        ({"depths": ()}, "depths=() is empty: give at least one value, such as 20,56"),
        ({"units": "plain"}, "units='plain' must be a list, such as ('plain', 'residual')"),
    ],
)
def test_an_experiments_settings_are_checked(settings, message, tmp_path):
    with pytest.raises(UserError) as refusal:
        api.experiment("plain_vs_residual").carry_out(tmp_path, **settings)
    assert str(refusal.value) == message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seeds": 0}, "seeds=0 must be a list of whole numbers, such as (0, 1)"),
        ({"seeds": "0,1"}, "seeds='0,1' must be a list of whole numbers, such as (0, 1)"),
        ({"seeds": (0, 1.0)}, "seeds=(0, 1.0) must be a list of whole numbers, such as (0, 1)"),
        ({"launcher": "slurm"}, "launcher='slurm' must be one of local, ray"),
        ({"trackers": "trakio"}, "--tracker=trakio: 'trakio' is not known; did you mean trackio?"),
    ],
)
def test_what_carry_out_is_given_is_checked(given, message, tmp_path):
    """Regression test: seeds=0 were the default seeds, and a text for trackers was taken letter by letter."""
    with pytest.raises(UserError) as refusal:
        api.experiment("plain_vs_residual").carry_out(tmp_path, **given)
    assert str(refusal.value) == message
    with pytest.raises(UserError, match="--tracker=trakio"):
        api.train(api.load_config(ROOT / "configs" / "digits.py", "plain-8"), tmp_path, trackers="trakio")
    assert list(tmp_path.iterdir()) == []


def test_an_experiment_from_python_is_planned_and_drawn(tmp_path, capsys):
    """The call is recorded, because the command line of this process says nothing about it."""
    sweep, given = api.experiment("sweep"), {"grid": ["train.batch_size=16,32"], "seeds": np.arange(2)}
    given |= {"config": ROOT / "configs" / "digits.py", "best_over": ["train.batch_size"], "choose_seeds": (1,)}
    given["overrides"] = {"model.depth": 8, "data.validation": 100}
    assert sweep.carry_out(tmp_path, dry_run=True, **given) is None
    assert "the best train.batch_size of each of 1 cases, with seed 0\n" in capsys.readouterr().out
    results = sweep.carry_out(tmp_path, draw=True, trackers="none", **given)
    assert [outcome.failure for outcome in results.outcomes] == ["not begun"] * 2
    assert (results.request.seeds, results.request.trackers) == ((0, 1), ())
    called = json.loads((tmp_path / "experiment.json").read_text())["command"]
    assert called.startswith(f"carry_out({str(tmp_path)!r}, config=")
    assert called.endswith("grid=['train.batch_size=16,32'], best_over=['train.batch_size'], choose_seeds=(1,))")


def test_an_experiments_numbers_have_bounds(tmp_path):
    with pytest.raises(UserError, match=r"^fraction=2.0 must be at most 1$"):
        api.experiment("cifar10").carry_out(tmp_path, fraction=2.0)
