"""A run that is killed or stopped at any moment and resumed gives the bits of an uninterrupted run."""

import random
import re
import signal
import time
from pathlib import Path

import pytest

from tests.commands import assert_same_bits, finish, lines, train
from tests.marks import slow

STEPS, LOG, CHECKPOINT = 200, 5, 20
RUN = (
    f"--config.train.log_every={LOG}", "--config.train.eval_every=40", f"--config.train.checkpoint_every={CHECKPOINT}",
    "--config.model.width=0.25", "--config.train.batch_size=16", "--config.schedule.milestones=(70,130)",
    "--config.data.validation=142",
)  # fmt: skip


def begin(workdir, steps=STEPS, **keys):
    return train(workdir, *RUN, f"--config.train.steps={steps}", **keys)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    code, output = finish(begin(workdir))
    assert code == 0, output
    assert [line["step"] for line in lines(workdir)] == list(range(LOG, STEPS + 1, LOG))
    return workdir


def read_until(process, text):
    """Reads the output up to a line with a text; returns that line and the step at which the run starts or resumes."""
    step, seen = None, []
    for line in process.stdout:
        seen.append(line)
        if found := re.search(r"(?:starting|resuming) at step (\d+) of", line):
            step = int(found[1])
        if text in line:
            return line, step
    raise AssertionError(f"it ended without {text!r}: {''.join(seen)}")


def wait_for(condition, process):
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, f"it ended before: {process.stdout.read()}"
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def last_line(workdir):
    """The step of the last complete line of metrics."""
    whole = (workdir / "metrics.jsonl").read_text().rpartition("\n")[0]
    return int(re.findall(r'^{"step": (\d+)', whole, re.MULTILINE)[-1]) if whole else 0


def saved(workdir):
    """The steps of the complete checkpoints."""
    folder = workdir / "checkpoints"
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal()) if folder.is_dir() else []


def being_written(workdir):
    return [p for p in (workdir / "checkpoints").iterdir() if "tmp" in p.name]


@pytest.mark.parametrize("kills", [4, slow(6)])
def test_a_run_that_is_killed_repeatedly_ends_in_the_same_bits(tmp_path, uninterrupted, kills):
    workdir, moments = tmp_path / "run", random.Random(0)
    began_at, newest, while_writing = [], [], 0
    for kill in range(kills):
        newest.append((saved(workdir) or [0])[-1])
        process = begin(workdir)
        if kill == 0:  # while it reads the data, compiles, or draws the parameters
            time.sleep(moments.uniform(0, 1))
        elif kill == 3:  # while it gets ready, after it has read the checkpoint
            began_at.append(read_until(process, "resuming at step")[1])
            time.sleep(moments.uniform(0, 0.5))
        else:
            began_at.append(read_until(process, "ready after")[1])
            target = began_at[-1] + moments.randint(5, 40)
            wait_for(lambda target=target: last_line(workdir) >= target and saved(workdir), process)
            if kill % 2:
                time.sleep(moments.uniform(0, 0.05))
            else:
                wait_for(lambda: being_written(workdir), process)
        assert process.poll() is None, f"kill {kill}: it had ended before; make the run longer"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        while_writing += bool(saved(workdir) and being_written(workdir))
    newest.append(saved(workdir)[-1])
    process = begin(workdir)
    began_at.append(read_until(process, "ready after")[1])
    code, output = finish(process)
    assert code == 0, output

    assert len(began_at) == kills  # every start printed its step
    assert began_at == newest[1:]  # each start resumed from the newest complete checkpoint
    assert sum(step > 0 for step in began_at) >= kills * 6 // 10, began_at
    assert len(set(began_at)) >= kills * 6 // 10, began_at
    assert while_writing, "no kill met a checkpoint being written"
    assert_same_bits(workdir, uninterrupted, STEPS)


def test_a_signal_saves_the_run_and_ends_it(tmp_path, uninterrupted):
    workdir, moments = tmp_path / "run", random.Random(1)
    process = begin(workdir, cold=True)
    wait_for(lambda: "jaxlib" in Path(f"/proc/{process.pid}/maps").read_text(), process)  # while it imports
    process.send_signal(signal.SIGINT)
    code, output = finish(process)
    assert code == 3, output
    assert "stopped by SIGINT" in output
    assert "Traceback" not in output

    went_on_at = 0
    for number in (signal.SIGTERM, signal.SIGINT):
        process = begin(workdir)
        assert read_until(process, "ready after")[1] == went_on_at
        target = went_on_at + moments.randint(10, 50)
        wait_for(lambda target=target: last_line(workdir) >= target, process)
        time.sleep(moments.uniform(0, 0.05))
        process.send_signal(number)
        code, output = finish(process)
        assert code == 3, output
        said = re.search(rf"stopped by {number.name} and saved at step (\d+) of {STEPS}; the same command", output)
        went_on_at = int(said[1])
        assert went_on_at >= target
        assert saved(workdir)[-1] == went_on_at
    process = begin(workdir)
    assert read_until(process, "ready after")[1] == went_on_at
    assert finish(process)[0] == 0
    assert_same_bits(workdir, uninterrupted, STEPS)


def test_a_kill_releases_the_lock_and_a_running_run_holds_it(tmp_path, uninterrupted):
    workdir = tmp_path / "run"
    process = begin(workdir)
    read_until(process, "starting at step 0")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert saved(workdir) == []

    process = begin(workdir)  # the killed process no longer holds the lock
    assert read_until(process, "starting at step")[1] == 0
    code, output = finish(begin(workdir))
    assert process.poll() is None, "the first had ended before the second was refused; make the run longer"
    assert code == 2
    assert output.startswith(f"error: --workdir={workdir}: another process is running there")
    assert len(output.splitlines()) == 1
    assert finish(process)[0] == 0
    assert_same_bits(workdir, uninterrupted, STEPS)


def test_a_finished_run_is_not_run_again(uninterrupted):
    def times():
        return {p: p.stat().st_mtime_ns for p in uninterrupted.rglob("*") if p.is_file() and p.name != ".lock"}

    before = times()
    code, output = finish(begin(uninterrupted))
    assert code == 0
    assert f"already finished, at step {STEPS}" in output
    assert before == times()


@pytest.mark.slow
def test_a_finished_run_with_more_steps_equals_a_longer_run(tmp_path, uninterrupted):
    workdir = tmp_path / "run"
    half = STEPS // 2
    code, output = finish(begin(workdir, half))
    assert code == 0, output
    code, output = finish(begin(workdir))
    assert code == 0, output
    assert f"resuming at step {half} of {STEPS}" in output
    assert_same_bits(workdir, uninterrupted, STEPS)
    code, output = finish(begin(workdir, half))
    assert code == 2
    assert f"train.steps: {STEPS} there, {half} now" in output
