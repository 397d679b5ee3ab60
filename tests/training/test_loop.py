"""Tests of a run, from its first line of metrics to its last checkpoint."""

import dataclasses
import json
import logging
import os
import shutil
import signal
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from resnet_flax import config
from resnet_flax.data import datasets, pixels
from resnet_flax.errors import Interrupted, UserError
from resnet_flax.networks import build, compilation
from resnet_flax.runs.checkpoints import Checkpoints
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.file_names import CHECKPOINTS, DAMAGED
from resnet_flax.runs.metrics import WALL_CLOCK
from resnet_flax.training import loop, restore
from resnet_flax.training import optimizer as optimizers
from resnet_flax.training import run as running
from resnet_flax.training.devices import data_mesh, replicated
from resnet_flax.training.state import State, abstract_state
from tests.marks import slow, with_onednn
from tests.runs.test_checkpoints import _collected, abandoned_reads  # noqa: F401 (a fixture)
from tests.runs.test_metrics import scalars
from tests.training.small import small_config


def tiny_config(**overrides):
    """A config with one stage of two units, which compiles in seconds."""
    return small_config(
        **{
            "model__stage_units": (2,), "train__steps": 16, "train__log_every": 2, "train__eval_every": 4,
            "train__checkpoint_every": 4, "train__keep_checkpoints": 1, "train__eval_train": True,
            "data__validation": 100, "optimizer__learning_rate": 0.1, "schedule__milestones": (5, 9),
        }
        | overrides
    )  # fmt: skip


def steady(workdir):
    """Returns the run's metrics without wall-clock times."""
    return [{k: v for k, v in line.items() if k not in WALL_CLOCK} for line in RunDirectory(workdir).metrics()]


def restored(workdir, c, step=None):
    with Checkpoints(workdir, read_only=True) as checkpoints:
        network = build(c.model, 10)
        like = abstract_state(network, optimizers.build(c.optimizer, lambda s: 0.0), (8, 8, 1), replicated(data_mesh()))
        return jax.device_get(State(**checkpoints.restore(like.items, step)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("loop") / "run"
    c = tiny_config()
    returned = loop.run(c, workdir)
    return workdir, config.resolve(c), returned


def test_lines_of_metrics_have_every_key(run):
    workdir, _, returned = run
    lines = RunDirectory(workdir).metrics()
    assert returned == lines[-1]
    assert [line["step"] for line in lines] == list(range(2, 17, 2))
    for line in lines:
        assert line["epoch"] == line["step"] * 16 / 1342
        # The rate of the step before the line, 0.1 divided by 10 from step 5 and again from step 9.
        assert line["learning_rate"] == pytest.approx(0.1 * 0.1 ** ((line["step"] > 5) + (line["step"] > 9)))
        assert 0 <= line["train_error"] <= 1
        assert line["images_per_second"] == pytest.approx(32 / line["seconds"])
        at_evaluations = {"test_loss", "test_error", "validation_loss", "validation_error", "train_error_clean"}
        assert at_evaluations & line.keys() == (at_evaluations if line["step"] % 4 == 0 else set())


def test_a_milestone_that_steps_cannot_reach_is_no_error(tmp_path):
    """Steps are int32. The rate of the second step is a tenth of 0.1, from the milestone before it."""
    given = {"train__steps": 2, "train__eval_train": False, "data__validation": 0}
    loop.run(tiny_config(schedule__milestones=(1, 2**40), **given), tmp_path)
    [line] = RunDirectory(tmp_path).metrics()
    assert line["learning_rate"] == pytest.approx(0.01)


def test_the_errors_are_those_of_the_network_in_the_checkpoint(run):
    """Compared with a network without a mesh, image by image."""
    workdir, c, _ = run
    state, data = restored(workdir, c), datasets.load(c.data)
    normalization = pixels.normalization(c.data.normalization, data.train)
    network = build(c.model, 10)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    forward = jax.jit(lambda images: network.apply(variables, normalization(images, np.float32)))
    final = RunDirectory(workdir).metrics()[-1]
    for name, images in (("test_error", data.test), ("validation_error", data.validation)):
        wrong = np.argmax(forward(images.images), -1) != images.labels
        assert final[name] == wrong.mean()
    wrong = np.argmax(forward(data.train.images), -1) != data.train.labels
    assert final["train_error_clean"] == wrong.mean()
    assert state.step == 16
    assert state.sums["images"] == 0  # reset with the last line


def test_a_line_is_the_mean_since_the_line_before(run, tmp_path):
    workdir, c, _ = run
    every_step = config.from_json(config.to_json(c))
    every_step.train.log_every = 1
    loop.run(every_step, tmp_path)
    single = {line["step"]: line for line in RunDirectory(tmp_path).metrics()}
    for line in RunDirectory(workdir).metrics():
        pair = single[line["step"] - 1], single[line["step"]]
        for key in ("train_loss", "train_error"):
            assert line[key] == pytest.approx(np.mean([p[key] for p in pair]), rel=1e-5)
    jax.tree.map(np.testing.assert_array_equal, restored(tmp_path, c).params, restored(workdir, c).params)


def test_the_checkpoint_with_the_lowest_validation_error_is_kept(run):
    workdir, _, _ = run
    errors = {
        line["step"]: line["validation_error"] for line in RunDirectory(workdir).metrics() if "validation_error" in line
    }
    best = min(errors, key=lambda s: (errors[s], -s))
    with Checkpoints(workdir, read_only=True) as checkpoints:
        assert checkpoints.best_step() == best
        assert set(checkpoints.steps()) == {best, 16}


def test_the_test_set_influences_only_test_metrics(run, tmp_path, monkeypatch):
    """With other labels on the test images, only the test loss and error change."""
    workdir, c, _ = run
    load = datasets.load

    def load_with_other_test_labels(data):
        dataset = load(data)
        other = dataclasses.replace(dataset.test, labels=np.roll(dataset.test.labels, 1))
        return dataclasses.replace(dataset, test=other)

    monkeypatch.setattr(datasets, "load", load_with_other_test_labels)
    loop.run(c, tmp_path)

    def without_test(folder):
        return [{k: v for k, v in line.items() if not k.startswith("test_")} for line in steady(folder)]

    assert without_test(tmp_path) == without_test(workdir)
    assert steady(tmp_path) != steady(workdir)
    kept = [sorted(p.name for p in (folder / CHECKPOINTS).iterdir()) for folder in (workdir, tmp_path)]
    assert kept[0] == kept[1]
    jax.tree.map(np.testing.assert_array_equal, restored(tmp_path, c), restored(workdir, c))


def test_tensorboard_shows_the_same_numbers(run):
    workdir, _, _ = run
    drawn = scalars(workdir)
    for line in RunDirectory(workdir).metrics():
        for key in line.keys() - {"step"}:
            assert drawn[key].pop(line["step"]) == pytest.approx(line[key], rel=1e-6)
    assert not any(drawn.values())


def test_config_json_is_enough_to_run_again(run, tmp_path):
    workdir, c, _ = run
    again = config.load("configs/from_json.py", str(workdir / "config.json"))
    assert config.flatten(again) == config.flatten(c)
    loop.run(again, tmp_path)
    assert steady(tmp_path) == steady(workdir)


@abandoned_reads
def test_a_damaged_checkpoint_costs_only_its_own_steps(run, tmp_path, capfd):
    workdir, c, _ = run
    shutil.copytree(workdir, tmp_path / "run")
    newest = tmp_path / "run" / CHECKPOINTS / "16"
    for path in newest.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (tmp_path / "run" / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in RunDirectory(workdir).metrics() if line["step"] < 16)
    )
    steps = sorted(int(p.name) for p in (workdir / CHECKPOINTS).iterdir())
    if len(steps) == 1:  # the last checkpoint is also the best
        with pytest.raises(UserError, match=r"none of its checkpoints \(16\) can be read"):
            loop.run(c, tmp_path / "run")
        return
    loop.run(c, tmp_path / "run")
    assert f"resuming at step {steps[0]} of 16" in capfd.readouterr().err
    assert (tmp_path / "run" / DAMAGED / "16").is_dir()
    assert steady(tmp_path / "run") == steady(workdir)
    jax.tree.map(np.testing.assert_array_equal, restored(tmp_path / "run", c, 16), restored(workdir, c, 16))


def test_lost_metrics_are_restored_from_the_checkpoint(run, tmp_path, capfd):
    workdir, c, last = run
    shutil.copytree(workdir, tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    assert loop.run(c, tmp_path / "run") == last
    assert ": 8 lines of steps 2 to 16 lost or changed, restored from checkpoint 16" in capfd.readouterr().err
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (workdir / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("lost", [slow("middle"), slow("changed"), "all but the last"])
def test_a_resume_restores_damaged_lines_of_metrics(run, tmp_path, capfd, lost):
    """Regression test: runs ended with 0 and 25 of their 36 lines."""
    workdir, _c, _ = run
    shutil.copytree(workdir, tmp_path / "run")
    metrics = tmp_path / "run" / "metrics.jsonl"
    texts = metrics.read_text().splitlines(keepends=True)
    damaged = {
        "middle": [*texts[:2], *texts[4:]],
        "changed": [texts[0], texts[1].replace("0.", "0.0", 1), *texts[2:]],
        "all but the last": texts[-1:],
    }[lost]
    metrics.write_text("".join(damaged))
    longer = config.resolve(tiny_config(train__steps=20))
    loop.run(longer, tmp_path / "run")
    said = {"middle": "2 lines of steps 6 to 8", "changed": "1 line of step 4", "all but the last": "7 lines of steps"}
    assert f"metrics.jsonl: {said[lost]}" in capfd.readouterr().err
    assert metrics.read_text().splitlines(keepends=True)[: len(texts)] == texts
    assert [line["step"] for line in RunDirectory(tmp_path / "run").metrics()] == list(range(2, 21, 2))


@pytest.mark.parametrize("name", ["config.json", "preprocessing.json", "starts.jsonl"])
def test_an_edited_file_is_named_with_advice(run, tmp_path, name):
    workdir, c, _ = run
    shutil.copytree(workdir, tmp_path / "run")
    path = tmp_path / "run" / name
    path.write_text(path.read_text().replace("0", "1", 1))
    with pytest.raises(UserError) as refused:
        loop.run(c, tmp_path / "run")
    assert str(refused.value) == (
        f"{path}: is not as the run wrote it (edited, or damaged), by its checksum in sums.json; put it back, or "
        f"delete {tmp_path / 'run' / 'sums.json'} to use the folder as it is"
    )
    if name == "starts.jsonl":  # following the advice
        (tmp_path / "run" / "sums.json").unlink()
        loop.run(c, tmp_path / "run")


def test_a_resume_on_a_gpu_says_that_the_last_bits_may_differ(run, tmp_path, capfd, monkeypatch):
    shutil.copytree(run[0], tmp_path / "run")
    monkeypatch.setattr(running, "jax", SimpleNamespace(default_backend=lambda: "gpu", tree=jax.tree))
    loop.run(tiny_config(train__steps=18), tmp_path / "run")
    said = f"{tmp_path / 'run'}: the last bits may differ from an uninterrupted run's: computed on a GPU\n"
    assert said in capfd.readouterr().err


def test_orbax_says_nothing_about_an_incomplete_checkpoint():
    """A killed process leaves one; what it means for the run is in the line "resuming at step"."""
    text = "Attempted to create temporary directory %s which already exists."
    logger = logging.getLogger("absl")
    found = [logger.makeRecord("absl", logging.WARNING, "orbax/x.py", 1, t, ("x",), None) for t in (text, "other %s")]
    assert [bool(logger.filter(record)) for record in found] == [False, True]


def test_a_run_whose_checkpoints_are_gone_says_so(run, tmp_path, capfd):
    workdir, c, _ = run
    shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / CHECKPOINTS)
    with (
        Checkpoints(tmp_path / "run", read_only=True) as checkpoints,
        pytest.raises(UserError, match="the run has no complete checkpoint; its metrics reach step 16$"),
    ):
        checkpoints.find_step("latest")
    loop.run(c, tmp_path / "run")
    said = "run: its metrics reach step 16, but no checkpoint is complete; restarting at step 0\n"
    written = capfd.readouterr().err
    assert said in written
    assert "run: compiling, which takes longest the first time" in written.partition("run: starting at step 0")[0]
    assert steady(tmp_path / "run") == steady(workdir)


@pytest.mark.parametrize(
    ("classes", "channels", "said"),
    [(3, 1, ", 3) now"), (10, 3, "(3, 3, 1, 4) there, (3, 3, 3, 4) now")],
)
def test_the_message_says_that_the_network_is_for_other_data(run, classes, channels, said):
    """Regression test: the message said that no checkpoint can be read, and to move the folder away."""
    workdir, c, _ = run
    with pytest.raises(UserError, match="its checkpoints are not damaged, but of a network for other data: ") as error:
        restore.load_variables(build(c.model, classes), (8, 8, channels), workdir)
    assert said in str(error.value)
    assert "move" not in str(error.value)


def test_a_failure_of_tensorboard_is_reported_once(run, tmp_path, capfd, monkeypatch):
    """Regression test: the thread of tensorboardX's usual writer died, and the run waited for it for ever."""
    _workdir, c, last = run
    from tensorboardX.record_writer import RecordWriter

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RecordWriter, "write", full)
    assert loop.run(c, tmp_path / "run")["test_loss"] == last["test_loss"]
    output = capfd.readouterr().err
    assert output.count("TensorBoard cannot be written (No space left on device); training continues without it") == 1


def test_a_signal_before_the_first_step_is_saved_as_step_0(run, tmp_path, monkeypatch):
    workdir, c, _ = run

    def prepare(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    real = loop.prepare
    monkeypatch.setattr(loop, "prepare", prepare)  # called while signals are remembered instead of ending the process
    with pytest.raises(Interrupted, match="stopped by SIGTERM and saved at step 0 of 16"):
        loop.run(c, tmp_path)
    monkeypatch.undo()
    loop.run(c, tmp_path)
    assert steady(tmp_path) == steady(workdir)


@pytest.mark.parametrize(("after", "kept", "recorded"), [(0, "there was no", 0), (4, "the checkpoint of step 4 is", 4)])
def test_a_signal_while_a_parameter_is_not_finite_saves_nothing(tmp_path, monkeypatch, after, kept, recorded):
    def next_call(self, state, step, wanted):
        if step > after:
            monkeypatch.setattr(running, "all_finite", lambda state: False)
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, state, step, wanted)

    real = running.TrainingRun.next_call
    monkeypatch.setattr(running.TrainingRun, "next_call", next_call)
    message = rf"SIGTERM at step \d of 16, and not saved there, because a parameter is not finite; {kept}"
    with pytest.raises(Interrupted, match=message):
        loop.run(tiny_config(), tmp_path)
    assert RunDirectory(tmp_path).interrupted() == recorded
    assert RunDirectory(tmp_path).steps() == [recorded] * bool(recorded)


@pytest.mark.parametrize(
    ("step", "every", "steps"), [(0, 5, 5), (4, 5, 1), (5, 5, 5), (0, 1, 1), (7, 1, 1), (15, 5, 3), (0, 100, 18)]
)
def test_steps_to_the_next_line_evaluation_or_checkpoint(step, every, steps):
    c = tiny_config().train
    c.steps, c.log_every, c.eval_every, c.checkpoint_every = 18, 200, every, 300
    assert loop.steps_to_next(step, c) == steps


@with_onednn
def test_a_run_with_onednn_says_so_and_repeats_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(compilation, "onednn_pays", lambda *_: True)
    c = tiny_config(model__stage_units=(1,), train__steps=4)
    for name in ("first", "second"):
        loop.run(c, tmp_path / name)
        assert [start["onednn"] for start in RunDirectory(tmp_path / name).starts()] == [True]
    assert steady(tmp_path / "first") == steady(tmp_path / "second")
