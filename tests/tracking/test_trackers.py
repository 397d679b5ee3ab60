"""Trackers: they get each line once, whatever was lost. Their failures are reported and never delay training."""

import dataclasses
import threading
import time

import pytest
from absl import flags

from resnet_flax import config as configs
from resnet_flax.errors import UserError
from resnet_flax.launchers import ray_task
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.file_names import TRACKER_ID
from resnet_flax.runs.metrics import WALL_CLOCK
from resnet_flax.sweeps import execution
from resnet_flax.sweeps.cases import Case, Request
from resnet_flax.sweeps.endings import SUCCESS
from resnet_flax.sweeps.plan import plan
from resnet_flax.tracking import background, table
from resnet_flax.tracking.tracker import Tracking
from resnet_flax.training import loop
from resnet_flax.training.run import TrainingRun
from tests.commands import command
from tests.runs.test_metrics import events, scalars
from tests.tracking import recorder
from tests.training.small import small_config


@pytest.fixture(autouse=True)
def recording(monkeypatch):
    """Adds a tracker called "recording", whose lines are in ``recorder``."""
    monkeypatch.setitem(table.TRACKERS, "recording", table.Kind("Recorder", "tests.tracking.recorder", "json", "it"))
    monkeypatch.setattr(background, "_PAUSE", 0.0)
    for kept in (recorder.OPENED, recorder.HELD, recorder.FAULT):
        kept.clear()


def line(step):
    return {"step": step, "train_loss": 1 / step, "test_error": None if step == 2 else step / 100}


def write(path, resumed_at, steps, trackers=("recording",)):
    with RunDirectory(path).metrics_log(resumed_at, tracking=Tracking(trackers)) as log:
        for step in steps:
            log.write(line(step))


def held():
    (lines,) = recorder.HELD.values()
    return list(lines.values())


class Killed(BaseException):
    """Ends a run at once, as a kill does."""


def test_a_run_that_is_killed_twice_is_one_run_with_each_step_once(tmp_path, monkeypatch):
    """After each kill, the tracker has a line that is computed again. The first kill also loses an earlier line."""
    c, tracking, next_call = small_config(train__log_every=2), Tracking(("recording",)), TrainingRun.next_call
    for killed_at, lost in ((6, 4), (10, 10)):

        def until(run, state, step, wanted, killed_at=killed_at):
            if step == killed_at:
                raise Killed
            return next_call(run, state, step, wanted)

        with monkeypatch.context() as patch:
            patch.setattr(TrainingRun, "next_call", until)
            with pytest.raises(Killed):
                loop.run(c, tmp_path, tracking)
        assert sorted(one["step"] for one in held()) == list(range(2, killed_at + 1, 2))
        del recorder.HELD[recorder.OPENED[0].id][lost]
    loop.run(c, tmp_path, tracking)
    lines = RunDirectory(tmp_path).metrics()
    assert [[one["step"] for one in run.lines] for run in recorder.OPENED] == [[], [2, 4], [2, 4, 6, 8]]
    assert sorted(held(), key=lambda one: one["step"]) == [
        # Wall-clock metrics differ when a line is computed again, and the tracker keeps the earlier line.
        one | {key: recorder.HELD[recorder.OPENED[0].id][one["step"]][key] for key in WALL_CLOCK}
        for one in lines
    ]
    assert len({run.id for run in recorder.OPENED}) == 1
    assert recorder.OPENED[0].config == configs.flatten(RunDirectory(tmp_path).config())
    assert recorder.OPENED[0].name == f"residual-8 on digits, {tmp_path}"
    assert not list(tmp_path.glob("events.out.*"))  # TensorBoard was not requested.


def test_a_finished_run_sends_the_lines_that_a_tracker_lacks(tmp_path):
    write(tmp_path, 0, [1, 2, 3])
    del recorder.HELD[recorder.OPENED[0].id][3]
    run = RunDirectory(tmp_path)
    for _ in range(2):
        run.complete_trackers(run.metrics(), Tracking(("recording", "tensorboard")))
        assert held() == [line(step) for step in (1, 2, 3)]
    assert len(list(tmp_path.glob("events.out.*"))) == 1  # The second time, no line was missing.
    assert list(scalars(tmp_path)["train_loss"]) == [1, 2, 3]


def test_runs_of_a_sweep_are_named_by_label_and_seed_and_grouped(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(loop, "run", lambda config, workdir, tracking: seen.append(tracking))
    request = Request("configs/digits.py", tmp_path, tmp_path / "runs", seeds=(0, 1), trackers=("wandb",))
    execution.execute(plan([Case("plain-8", {"model.dropout": 0.5})], request), request)
    name, group = "plain-8 model.dropout=0.5, seed {}", str(tmp_path)
    assert seen == [Tracking(("wandb",), name.format(seed), group) for seed in (0, 1)]


def test_a_worker_of_a_cluster_gets_the_runs_name(tmp_path, monkeypatch):
    """The worker gets plain values, because it can import this package only later."""
    seen, tracking = [], Tracking(("wandb",), "plain-8, seed 0", "runs/depth")
    monkeypatch.setattr(ray_task, "attempt", lambda config, workdir, tracking: seen.append(tracking) or SUCCESS)
    assert len(list(ray_task.work(configs.to_json(small_config()), tmp_path, None, dataclasses.astuple(tracking)))) == 2
    assert seen == [tracking]


def test_the_id_stays_when_a_run_is_moved(tmp_path):
    (tmp_path / "a").mkdir()
    write(tmp_path / "a", 0, [1])
    (tmp_path / "a").rename(tmp_path / "b")
    write(tmp_path / "b", 1, [2])
    assert held() == [line(1), line(2)]
    (tmp_path / "b" / TRACKER_ID).write_text("../../etc")  # a path in place of an id
    write(tmp_path / "b", 2, [3])
    _, last = recorder.HELD
    assert last == (tmp_path / "b" / TRACKER_ID).read_text() != "../../etc"


def fail():
    raise ConnectionError("no route\nto the host")


@pytest.mark.parametrize("where", ["open", "write", "close"])
def test_a_failure_of_a_tracker_is_reported_once(tmp_path, capfd, where):
    recorder.FAULT[where] = fail
    write(tmp_path, 0, [1, 2, 3], ("recording", "tensorboard"))
    said = f"{tmp_path}: Recorder cannot be written (no route to the host); training continues without it\n"
    assert capfd.readouterr().err == said
    assert RunDirectory(tmp_path).metrics() == [line(step) for step in (1, 2, 3)]
    assert list(scalars(tmp_path)["train_loss"]) == [1, 2, 3]


def test_training_does_not_wait_for_a_tracker(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(background, "_PATIENCE", 0.05)
    released = threading.Event()
    recorder.FAULT["write"] = lambda: released.wait(30)
    start = time.perf_counter()
    write(tmp_path, 0, range(1, 11))
    assert time.perf_counter() - start < 5
    released.set()
    assert "Recorder is still busy after 0.05 s" in capfd.readouterr().err
    assert len(RunDirectory(tmp_path).metrics()) == 10


def test_lines_missing_from_event_files_are_written_again(tmp_path):
    """A crash cut the last line short, and a line is computed again."""
    write(tmp_path, 0, [1, 2, 3, 4], ("tensorboard",))
    (first,) = tmp_path.glob("events.out.*")
    times = {event.step: event.wall_time for event in events(tmp_path) if event.step}
    whole = first.read_bytes()
    first.write_bytes(whole[:-5])  # cuts step 4 short
    write(tmp_path, 3, [4, 5], ("tensorboard",))
    assert list(scalars(tmp_path)["train_loss"]) == [1, 2, 3, 4, 5]
    assert {event.step: event.wall_time for event in events(tmp_path)[:5] if 0 < event.step < 4} == {
        step: times[step] for step in (1, 2, 3)
    }
    first.write_bytes(whole[: len(whole) // 2])  # cuts step 2 or an earlier one short
    write(tmp_path, 5, [6], ("tensorboard",))
    assert list(scalars(tmp_path)["train_loss"]) == [1, 2, 3, 4, 5, 6]


def test_tensorboard_gets_the_config(tmp_path):
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    c = configs.resolve(small_config())
    RunDirectory(tmp_path).write_config(c)
    write(tmp_path, 0, [1], ("tensorboard",))
    (value,) = [v for event in events(tmp_path) for v in event.summary.value if v.tag == "_hparams_/session_start_info"]
    assert value.metadata.plugin_data.plugin_name == "hparams"
    found = HParamsPluginData.FromString(value.metadata.plugin_data.content).session_start_info.hparams
    assert found.keys() == configs.flatten(c).keys()
    assert found["model.width"].number_value == 0.25
    assert found["model.unit"].string_value == "residual"
    assert found["schedule.milestones"].string_value == "(6, 9)"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("tensorbord", "'tensorbord' is not known; did you mean tensorboard?"),
        ("tensorboard,mlflow", "'mlflow' is not known; choose from tensorboard, trackio, wandb, "),
        ("absent", "the package no_such_package is not installed; pip install '.[no]', or leave absent out"),
    ],
)
def test_an_unknown_or_missing_tracker_is_refused(tmp_path, monkeypatch, given, said):
    monkeypatch.setitem(table.TRACKERS, "absent", table.Kind("Absent", "nowhere", "no_such_package", "'.[no]'"))
    with pytest.raises(UserError) as error:
        loop.run(small_config(), tmp_path / "run", Tracking(tuple(given.split(","))))
    assert str(error.value).startswith(f"--tracker={given}: {said}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments", [("train.py", "--config=configs/digits.py:plain-8"), ("-m", "experiments.depth_sweep", "--dry-run")]
)
def test_the_flag_is_refused_in_one_line(tmp_path, arguments):
    code, output = command(*arguments, f"--workdir={tmp_path}", "--tracker=trakio")
    assert (code, output) == (2, "error: --tracker=trakio: 'trakio' is not known; did you mean trackio?\n")


@pytest.mark.parametrize(
    ("given", "names"), [("", ()), ("none", ()), ("tensorboard,recording,tensorboard", ("tensorboard", "recording"))]
)
def test_values_of_the_flag(given, names):
    values = flags.FlagValues()
    table.define_flag(values)
    values(["command", f"--tracker={given}"])
    assert table.requested_trackers(values) == names
