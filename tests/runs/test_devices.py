"""Several devices and processes train like one device, and act together on a signal, a mistake or a lost process."""

import re
import signal
import time

import numpy as np
import pytest

from resnet_flax.runs.directory import RunDirectory
from tests.commands import arrays, finish, free_port, lines, start, train
from tests.marks import slow

# One scanned stage, because these tests mostly compile. tests/training/test_step.py covers all stages.
SMALL = (
    "--config.model.stage_units=(3,)", "--config.model.width=0.25", "--config.train.batch_size=16",
    "--config.train.log_every=1", "--config.train.eval_every=10", "--config.train.eval_batch_size=71",
    "--config.schedule.name=constant",
    "--config.optimizer.learning_rate=0.1",
)  # fmt: skip
FLOAT64 = ("--config.model.dtype=float64", "--config.model.param_dtype=float64")
CASES = {
    "float32": (5, SMALL, {}, 1e-5),  # only 5 steps, because rounding errors grow
    "float64": (30, SMALL + FLOAT64, {"JAX_ENABLE_X64": "1"}, 1e-10),
}


def assert_losses(workdir, expected, tolerance):
    ours, theirs = lines(workdir), expected
    assert [line["step"] for line in ours] == list(range(1, len(theirs) + 1))
    for key in ("train_loss", "test_loss"):
        found = [line[key] for line in ours if key in line]
        np.testing.assert_allclose(found, [line[key] for line in theirs if key in line], rtol=tolerance, err_msg=key)


# tests/training/test_step.py is a faster test of float32 on several devices of one process.
@pytest.fixture(scope="module", params=[slow("float32"), "float64"])
def one_device(request, tmp_path_factory):
    steps, arguments, environment, tolerance = CASES[request.param]
    arguments = (*arguments, f"--config.train.steps={steps}")
    workdir = tmp_path_factory.mktemp(request.param) / "one"
    code, output = finish(train(workdir, *arguments, environment=environment))
    assert code == 0, output
    assert "on 1 cpu" in output
    expected = lines(workdir)
    assert len(expected) == steps
    if request.param == "float64":
        saved = arrays(workdir, steps)
        inexact = {name: a.dtype for name, a in saved.items() if np.issubdtype(a.dtype, np.inexact)}
        assert set(inexact.values()) == {np.dtype("float64")}, inexact
    return steps, arguments, environment, tolerance, expected


@pytest.mark.slow  # tests/training/test_step.py compares eight devices with one
def test_eight_devices_train_like_one(tmp_path, one_device):
    _, arguments, environment, tolerance, expected = one_device
    code, output = finish(train(tmp_path / "run", *arguments, devices=8, environment=environment))
    assert code == 0, output
    assert "on 8 cpu" in output
    assert_losses(tmp_path / "run", expected, tolerance)


def processes(count, workdir, *arguments, **keys):
    join = (f"--coordinator=localhost:{free_port()}", f"--processes={count}", "--lost_after=20")
    return [train(workdir, *arguments, *join, f"--process={i}", **keys) for i in range(count)]


def wait_for_lines(workdir, count, process):
    deadline = time.monotonic() + 200
    while len(RunDirectory(workdir).metrics()) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def stop(both, workdir, count):
    """Sends SIGTERM to the process that writes nothing; both must save the same step, which is returned, and end."""
    wait_for_lines(workdir, count, both[0])
    both[1].send_signal(signal.SIGTERM)
    results = [finish(p) for p in both]
    assert [code for code, _ in results] == [3, 3], results
    stopped = [re.search(r"stopped by (.+) and saved at step (\d+) of 30", output) for _, output in results]
    assert [s[1] for s in stopped] == ["a signal to another process", "SIGTERM"]
    assert stopped[0][2] == stopped[1][2]
    assert count <= int(stopped[0][2]) < 30
    return int(stopped[0][2])


@pytest.mark.slow
def test_four_processes_train_like_one(tmp_path, one_device):
    _, arguments, environment, tolerance, expected = one_device
    results = [finish(p) for p in processes(4, tmp_path / "run", *arguments, environment=environment)]
    assert [code for code, _ in results] == [0] * 4, results
    assert "on 4 cpu" in results[0][1]
    assert_losses(tmp_path / "run", expected, tolerance)


@pytest.mark.parametrize(("count", "victim"), [*(slow(4, i) for i in (0, 2)), (2, 1)])
@pytest.mark.parametrize("one_device", ["float64"], indirect=True)
def test_a_killed_process_ends_the_others_and_the_run_resumes(tmp_path, one_device, count, victim):
    """The other processes report the loss and stop at once. Two processes resume, and reach the losses of one process.

    The case of two processes also stops one of them with a signal before the end.
    """
    _, arguments, environment, tolerance, expected = one_device
    workdir, keys = tmp_path / "run", {"environment": environment}
    arguments = (*arguments, "--config.train.checkpoint_every=5")
    several = processes(count, workdir, *arguments, **keys)
    wait_for_lines(workdir, 12, several[0])
    several[victim].kill()
    began = time.monotonic()
    results = [finish(p, timeout=60) for p in several]
    assert time.monotonic() - began < 30
    for i, (code, output) in enumerate(results):
        if i == victim:
            assert f"error: process {i} of {count} was killed, or ended by jax" in output.splitlines()[-1]
            continue
        # If process 0 is gone, jax may abort the others before Python can report it.
        assert code == 3 or (victim == 0 and code == -signal.SIGABRT), output
        assert f"error: process {i} of {count}" in output
        assert "another process is lost" in output
        assert "checkpoints are intact: the same command resumes the run" in output
        assert "Traceback" not in output

    stopped_at = stop(processes(2, workdir, *arguments, **keys), workdir, 15) if count == 2 else None
    results = [finish(p) for p in processes(2, workdir, *arguments, **keys)]
    assert [code for code, _ in results] == [0, 0], results
    assert "on 2 cpu" in results[0][1]
    went_on_at = int(re.search(r"resuming at step (\d+) of 30", results[0][1])[1])
    assert went_on_at == stopped_at or (stopped_at is None and went_on_at in (5, 10, 15, 20, 25))
    assert_losses(workdir, expected, tolerance)


REFUSED = [
    (["--processes=2", "--process=1"], "no answer within 1 s (Connection refused); does process 0 run on that host"),
    (["--processes=2", "--process=2"], "--process=2 must be from 0 to --processes - 1, which is 1"),
    (["--processes=2", "--process=0"], "waiting for the other processes (at most 1 s"),
    (["--processes=2"], "--coordinator, --processes and --process belong together"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_processes_that_cannot_join_each_other_end_with_one_line(tmp_path, arguments, message):
    code, output = finish(
        train(tmp_path, *arguments, f"--coordinator=localhost:{free_port()}", "--coordinator_timeout=1"), timeout=60
    )
    last = output.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in output
    # If the other processes do not join, jax aborts the process.
    assert code == (2 if "waiting for" not in message else -signal.SIGABRT)


def test_a_mistake_that_one_process_finds_ends_both_processes(tmp_path):
    """Both processes notice a batch that does not fit, but only the first one, which writes it, a bad folder."""
    results = [finish(p) for p in processes(2, tmp_path / "run", "--config.train.batch_size=17")]
    assert [code for code, _ in results] == [2, 2]
    assert all("train.batch_size=17 is not divisible by the 2 devices; 16 or 18 would be" in o for _, o in results)

    (tmp_path / "file").write_text("")
    results = [finish(p) for p in processes(2, tmp_path / "file" / "run")]
    assert [code for code, _ in results] == [2, 2]
    assert "cannot be created: Not a directory" in results[0][1]
    assert "process 0 could not start; see its own error message" in results[1][1]


@pytest.mark.parametrize("shared", [True, False])
def test_processes_keep_compiled_programs_only_in_a_folder_that_all_see(tmp_path, shared):
    """With folders of their own, on GPUs a process that compiles would wait for one that reads the program."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, jax; from resnet_flax import command\n"
        "def main():\n"
        "    jax.jit(lambda x: x + 1)(0.0)\n"
        "    print('cache:', jax.config.values['jax_compilation_cache_dir'], file=sys.stderr)\n"
        "command.run(main, uses_devices=True)"
    )
    join = (f"--coordinator=localhost:{free_port()}", "--processes=2")
    homes = [tmp_path / ("all" if shared else str(i)) for i in range(2)]
    both = [start(str(program), *join, f"--process={i}", environment={"XDG_CACHE_HOME": str(home)})
            for i, home in enumerate(homes)]  # fmt: skip
    results = [finish(p) for p in both]
    assert [code for code, _ in results] == [0, 0], results
    folder = homes[0] / "resnet_flax" / "xla"
    assert all(f"cache: {folder if shared else None}\n" in output for _, output in results), results
    assert bool(list(folder.glob("*-cache"))) == shared
    assert not list(folder.glob(".seen-*"))
