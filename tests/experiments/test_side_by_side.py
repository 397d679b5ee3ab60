"""Two sweeps at once on one folder: the second takes the next run where one is busy, and comes back to it."""

import threading
import time

from experiments.launchers import local
from experiments.launchers.attempt import WELL
from experiments.runs import Run
from resnet_flax.training import workdir as folders
from tests.experiments.folders import config


def test_a_busy_run_is_taken_up_again_after_the_others(tmp_path, monkeypatch, capsys):
    """The second sweep gave up at the first run that was busy."""
    of = config()
    runs = [Run(of, tmp_path / name, name) for name in "abc"]
    done, b_is_done = [], threading.Event()

    def attempt(_, workdir):
        with folders.locked(workdir):
            done.append(workdir.name)
        if workdir.name == "c":
            b_is_done.set()
        return WELL

    monkeypatch.setattr(local, "attempt", attempt)

    def other_sweep():
        with folders.locked(runs[0].workdir), folders.locked(runs[1].workdir):
            held.set()
            b_is_done.wait(20)
            time.sleep(0.3)

    held = threading.Event()
    other = threading.Thread(target=other_sweep)
    other.start()
    held.wait()
    assert local.launch(runs) == [WELL] * 3
    other.join()
    assert done == ["c", "a", "b"]
    said = capsys.readouterr().err
    assert "a, seed 0: another process is at it; it is taken up again after the others" in said
    assert "waiting for the other process" in said
