"""Killed or asked to stop, at any moment, a run ends in the bits of one that was never stopped."""

import json
import random
import re
import signal
import time

import numpy as np
import pytest

from tests.commands import arrays, finish, lines, train

STEPS = 1500
RUN = (
    f"--config.train.steps={STEPS}", "--config.train.log_every=10", "--config.train.eval_every=50",
    "--config.train.checkpoint_every=25", "--config.model.width=0.5", "--config.train.batch_size=16",
    "--config.schedule.milestones=(700,1100)", "--config.data.validation=100",
)  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    code, output = finish(train(workdir, *RUN))
    assert code == 0, output
    return workdir


def assert_same_bits(workdir, uninterrupted):
    ours, expected = arrays(workdir, STEPS), arrays(uninterrupted, STEPS)
    assert ours.keys() == expected.keys()
    assert len(ours) > 30
    for name in expected:
        np.testing.assert_array_equal(ours[name], expected[name], err_msg=name)
    assert lines(workdir) == lines(uninterrupted)
    # Each once: every 10 steps, and with a validation split at every checkpoint.
    assert [line["step"] for line in lines(workdir)] == [s for s in range(1, STEPS + 1) if s % 10 == 0 or s % 25 == 0]


def wait_until_ready(process):
    """Reads the output up to the line after which training begins; returns the step it says it starts at."""
    step = None
    for line in process.stdout:
        if found := re.search(r"(?:starts|goes on) at step (\d+) of", line):
            step = int(found[1])
        if "ready after" in line:
            return step
        if step is None and "error" in line:
            raise AssertionError(line + process.stdout.read())
    raise AssertionError("it ended before training began")


def being_written(workdir):
    return [p for p in (workdir / "checkpoints").glob("*") if "tmp" in p.name]


@pytest.mark.timeout(900)
def test_sigkill_at_ten_moments(tmp_path, uninterrupted):
    workdir, moments = tmp_path / "run", random.Random(0)
    started_at, while_writing = [], 0
    for kill in range(10):
        process = train(workdir, *RUN)
        if kill == 0:
            time.sleep(moments.uniform(1, 4))  # while it starts
        else:
            started_at.append(wait_until_ready(process))
            if kill in (2, 5, 8):  # while a checkpoint is being written
                deadline = time.monotonic() + 30
                while not being_written(workdir) and time.monotonic() < deadline and process.poll() is None:
                    pass
            else:
                time.sleep(moments.uniform(0, 0.8))
        assert process.poll() is None, f"kill {kill}: it had ended before; make it longer"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        while_writing += bool(being_written(workdir))
    code, output = finish(train(workdir, *RUN))
    assert code == 0, output
    started_at.append(int(re.search(r"goes on at step (\d+) of", output)[1]))

    assert len(started_at) == 10  # each restart said where it goes on
    assert sum(step > 0 for step in started_at) >= 6, started_at
    assert sorted(started_at) == started_at  # nothing that was saved was lost
    assert while_writing, "no kill met a checkpoint being written"
    assert_same_bits(workdir, uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves(tmp_path, uninterrupted, number):
    workdir, moments = tmp_path / "run", random.Random(1)
    for stop in range(3):
        process = train(workdir, *RUN)
        if stop == 0:
            time.sleep(1.5)  # as it starts, perhaps before it has the handler
            process.send_signal(number)
            finish(process)
            continue
        wait_until_ready(process)
        time.sleep(moments.uniform(0.1, 0.8))
        process.send_signal(number)
        code, output = finish(process)
        assert code == 3, output
        saved = re.search(rf"stopped by {number.name} and saved at step (\d+) of {STEPS}; the same command", output)
        assert (workdir / "checkpoints" / saved[1]).is_dir()
        assert json.loads((workdir / "interrupted.json").read_text()) == {"step": int(saved[1])}
    process = train(workdir, *RUN)
    assert wait_until_ready(process) == int(saved[1])
    assert finish(process)[0] == 0
    assert not (workdir / "interrupted.json").exists()
    assert_same_bits(workdir, uninterrupted)


def test_a_finished_run_is_not_run_again(uninterrupted):
    before = {p: p.stat().st_mtime_ns for p in uninterrupted.rglob("*") if p.is_file() and p.name != ".lock"}
    code, output = finish(train(uninterrupted, *RUN))
    assert code == 0
    assert f"finished before, at step {STEPS}" in output
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_taken(tmp_path, uninterrupted):
    workdir = tmp_path / "run"
    process = train(workdir, *RUN)
    wait_until_ready(process)
    time.sleep(0.8)
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 3
    steps = sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdecimal())
    for file in (workdir / "checkpoints" / str(steps[-1])).rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    code, output = finish(train(workdir, *RUN))
    assert code == 0, output
    assert f"checkpoint {steps[-1]} of {workdir}/checkpoints cannot be read" in output
    assert f"goes on at step {steps[-2]} of {STEPS}" in output
    assert (workdir / "damaged_checkpoints" / str(steps[-1])).is_dir()
    assert_same_bits(workdir, uninterrupted)


def test_checkpoints_that_cannot_be_read_are_never_written_over(tmp_path):
    workdir = tmp_path / "run"
    short = (*RUN, "--config.train.steps=50", "--config.schedule.milestones=(20,30)")
    assert finish(train(workdir, *short))[0] == 0
    (workdir / "metrics.jsonl").unlink()  # so that it is not taken for finished
    for file in (workdir / "checkpoints").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    code, output = finish(train(workdir, *short))
    assert code == 2
    assert "none of its checkpoints (50, 25) can be read" in output
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["25", "50"]


def test_more_steps_go_on_from_the_last(tmp_path):
    workdir = tmp_path / "run"
    short = [a for a in RUN if "steps=" not in a and "milestones" not in a] + ["--config.schedule.name=constant"]
    assert finish(train(workdir, *short, "--config.train.steps=50"))[0] == 0
    code, output = finish(train(workdir, *short, "--config.train.steps=100"))
    assert code == 0
    assert "goes on at step 50 of 100" in output
    assert [line["step"] for line in lines(workdir)] == list(range(10, 101, 10))
