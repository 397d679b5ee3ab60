"""A run that was killed twice is one run with each step once in TensorBoard, Trackio and Weights & Biases (offline)."""

import importlib.util
import json
import signal
import sqlite3
import subprocess
import sys

import pytest

from resnet_flax import config as configs
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.metrics import WALL_CLOCK
from tests.commands import finish, train
from tests.runs.test_interruption import last_line, read_until, wait_for
from tests.runs.test_metrics import scalars

TRACKERS = [name for name in ("tensorboard", "trackio", "wandb") if importlib.util.find_spec(name)]
STEPS = 1200


def needs(name):
    return pytest.mark.skipif(name not in TRACKERS, reason=f"{name} is not installed (requirements-track.txt)")


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def killed_twice(tmp_path_factory):
    """The run directory, and the folder of Trackio."""
    root = tmp_path_factory.mktemp("trackers")
    workdir, environment = root / "run", {"WANDB_MODE": "offline", "TRACKIO_DIR": str(root / "trackio")}
    wanted = ",".join({"tensorboard", *TRACKERS})

    def begin():
        return train(
            workdir, "--config.train.log_every=1", "--config.train.eval_every=100", "--config.model.width=0.25",
            "--config.train.checkpoint_every=100", "--config.train.batch_size=16", f"--config.train.steps={STEPS}",
            f"--tracker={wanted}", environment=environment,
        )  # fmt: skip

    for reached in (350, 850):
        process = begin()
        read_until(process, "ready after")
        wait_for(lambda reached=reached: last_line(workdir) >= reached, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    code, output = finish(begin())
    assert code == 0, output
    assert "cannot be written" not in output
    assert "still busy" not in output
    return workdir, root / "trackio"


def comparable(lines):
    return [{key: value for key, value in line.items() if key not in ("step", *WALL_CLOCK)} for line in lines]


def assert_whole(found, workdir):
    """Asserts that pairs of a step and metrics, in the order in which they were sent, are those of the run."""
    truth = RunDirectory(workdir).metrics()
    assert [line["step"] for line in truth] == list(range(1, STEPS + 1))
    assert [step for step, _ in found] == list(range(1, STEPS + 1))
    assert comparable(line for _, line in found) == comparable(truth)


@needs("wandb")
def test_wandb_offline(killed_twice):
    workdir, _ = killed_twice
    files = sorted(workdir.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 3
    runs, found, in_each = [], [], []
    for file in files:  # read with its own tool
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
        out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        records = [json.loads(text) for text in out.splitlines() if text.startswith("{")]
        runs += [record["run"] for record in records if record["type"] == "run"]
        lines = [record["history"]["item"] for record in records if record["type"] == "history"]
        in_each.append(len(lines))
        found += [(line["_step"], {k: v for k, v in line.items() if k[0] != "_"}) for line in lines]
    assert_whole(found, workdir)
    assert min(in_each) > 0, "a kill came before anything was on disk"
    assert {run["run_id"] for run in runs} == {(workdir / "tracker_id").read_text()}
    assert {run["display_name"] for run in runs} == {f"residual-8 on digits, {workdir}"}
    told = runs[0]["config"]["update"]
    assert told.pop("_wandb") == {}
    assert told == json.loads(json.dumps(configs.flatten(RunDirectory(workdir).config())))


@needs("trackio")
def test_trackio(killed_twice):
    workdir, folder = killed_twice
    (path,) = folder.glob("*.db")
    with sqlite3.connect(path) as database:
        rows = database.execute("select step, metrics from metrics order by id").fetchall()
        runs = database.execute("select distinct run_id, run_name from metrics").fetchall()
        ((config,),) = database.execute("select config from configs").fetchall()
    assert_whole([(step, json.loads(metrics)) for step, metrics in rows], workdir)
    assert runs == [((workdir / "tracker_id").read_text(), f"residual-8 on digits, {workdir}")]
    told = json.loads(config)
    assert told.pop("_Group") is None
    assert told == json.loads(json.dumps(configs.flatten(RunDirectory(workdir).config())))


@needs("tensorboard")
def test_tensorboard(killed_twice):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    workdir, _ = killed_twice
    read = EventAccumulator(str(workdir), size_guidance={"scalars": 0})
    read.Reload()
    truth = RunDirectory(workdir).metrics()
    for tag in ("train_loss", "test_error"):
        expected = [(line["step"], pytest.approx(line[tag], rel=1e-6)) for line in truth if tag in line]
        assert [(event.step, event.value) for event in read.Scalars(tag)] == expected
        assert list(scalars(workdir)[tag]) == [step for step, _ in expected]
    assert "_hparams_/session_start_info" in read.PluginTagToContent("hparams")
