"""Two sweeps on one folder at once: if a run is busy, a sweep trains the next one first and returns later."""

import threading
import time
import types

from resnet_flax import config as configs
from resnet_flax.launchers import local, ray_task
from resnet_flax.launchers import ray as launcher
from resnet_flax.runs import directory
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.sweeps.cases import PlannedRun
from resnet_flax.sweeps.endings import SUCCESS
from tests.experiments.folders import config


def test_a_busy_run_is_tried_again_after_the_others(tmp_path, monkeypatch, capsys):
    """Once, the second sweep stopped at the first busy run."""
    of = config()
    runs = [PlannedRun(of, tmp_path / name, name) for name in "abc"]
    done, b_is_done = [], threading.Event()

    def attempt(_config, workdir, _tracking):
        with RunDirectory(workdir).locked():
            done.append(workdir.name)
        if workdir.name == "c":
            b_is_done.set()
        return SUCCESS

    monkeypatch.setattr(local, "attempt", attempt)
    monkeypatch.setattr(directory, "_LOCK_SECONDS", 0.0)

    def other_sweep():
        with RunDirectory(runs[0].workdir).locked(), RunDirectory(runs[1].workdir).locked():
            held.set()
            b_is_done.wait(20)
            time.sleep(0.3)

    held = threading.Event()
    other = threading.Thread(target=other_sweep)
    other.start()
    held.wait()
    endings = {}
    local.launch(runs, endings)
    assert endings == dict.fromkeys(range(3), SUCCESS)
    other.join()
    assert done == ["c", "a", "b"]
    said = capsys.readouterr().err
    assert "a, seed 0: another process is training it; trying again after the other runs" in said
    assert "waiting for the other process" in said


def test_a_worker_reports_a_busy_run(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_task, "_PATIENCE", 0.05)
    with RunDirectory(tmp_path).locked():
        events = list(ray_task.work(configs.to_json(config()), str(tmp_path), None))
    assert [kind for kind, _ in events] == [ray_task.STARTED, ray_task.BUSY]
    assert "another process still holds it" in events[1][1]


def test_a_busy_run_is_submitted_to_the_cluster_again(tmp_path, capsys):
    """Once, a second sweep on Ray reported it as crashed after some minutes."""
    runs = [PlannedRun(config(), tmp_path / name, name) for name in "ab"]
    answers = {"a": iter([ray_task.BUSY, ray_task.BUSY, ""]), "b": iter([""])}
    handed = []

    class Cluster:
        """Stands in for Ray, with tasks that end at once."""

        exceptions = types.SimpleNamespace(
            TaskCancelledError=StopIteration, WorkerCrashedError=StopIteration, NodeDiedError=StopIteration,
            OutOfMemoryError=StopIteration, RayTaskError=StopIteration,
        )  # fmt: skip

        def wait(self, streams, num_returns, timeout):
            return streams[:num_returns], streams[num_returns:]

        def get(self, event):
            return event

    class Stream:
        def __init__(self, name):
            self._events = iter([(ray_task.STARTED, "here"), (next(answers[name]), "held by another")])

        def __next__(self):
            return next(self._events)

    def submit(run):
        handed.append(run.label)
        return Stream(run.label)

    stop = types.SimpleNamespace(received=None)
    endings = {}
    launcher._Sweep(Cluster(), runs, stop, endings).run(lambda: submit)
    assert (endings[0][0], endings[1][0]) == ("", "")
    assert handed == ["a", "b", "a", "a"]
    assert capsys.readouterr().err.count("a, seed 0: another process is training it; trying again after") == 2
