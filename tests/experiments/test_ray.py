"""Sweeps on a Ray cluster of two workers: a worker is lost, a run diverges, the sweep itself is stopped."""

import importlib.util
import json
import os
import re
import signal
import time

import pytest
from jaxlib import xla_client

from resnet_flax.launchers import ray as launcher
from resnet_flax.reporting import status
from resnet_flax.sweeps.cases import Cluster
from tests.commands import command, finish, free_port, lines, start
from tests.marks import slow

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed (requirements-ray.txt)"
)
STEPS = 200
SMALL = (
    "--grid=model.depth=8", "--grid=model.unit=residual", f"--config.train.steps={STEPS}",
    "--config.train.log_every=20", "--config.train.eval_every=100", "--config.train.checkpoint_every=20",
    "--config.model.width=0.25", "--config.train.batch_size=16", "--config.schedule.milestones=(100,150)",
)  # fmt: skip
ON_RAY = ("--launcher=ray", "--ray_workers=2", "--ray_address=local")


def sweep(workdir, *arguments):
    return start("-m", "experiments.depth_sweep", *SMALL, f"--workdir={workdir}", *arguments)


def starts(workdir):
    """Returns the step of each start of each run, by the name of its directory."""
    return {
        path.parent.name: [json.loads(line)["step"] for line in path.read_text().splitlines()]
        for path in workdir.glob("runs/*/starts.jsonl")
    }


def read_until(process, pattern):
    for line in process.stdout:
        if found := re.search(pattern, line):
            return found
    raise AssertionError(f"it ended without {pattern!r}")


def wait_for(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def checkpoints(folder):
    return [int(path.name) for path in folder.glob("checkpoints/*") if path.name.isdecimal()]


@needs_ray
@pytest.mark.parametrize("count", [3, slow(8)])
def test_another_worker_resumes_the_run_of_a_lost_worker(tmp_path, count):
    process = sweep(tmp_path / "ray", f"--seeds={','.join(map(str, range(count)))}", *ON_RAY)
    found = read_until(process, r"residual-8, seed (\d): starts on .*, process (\d+)")
    victim = f"-seed{found[1]}"

    def folder(sweep):
        return next((tmp_path / sweep / "runs").glob(f"*{victim}"))

    wait_for(lambda: checkpoints(folder("ray")))
    states = {name: state for name, state, *_ in status.read(tmp_path / "ray").rows}
    assert states[folder("ray").relative_to(tmp_path / "ray").as_posix()] == "running"
    assert len(states) == count
    os.kill(int(found[2]), signal.SIGKILL)
    assert max(checkpoints(folder("ray"))) < STEPS, "it was killed too late"
    code, output = finish(process)
    assert code == 0, output
    assert output.count("its worker was lost") == 1
    assert f"{count} of {count} runs done" in output
    assert "raylet" not in output

    begun = starts(tmp_path / "ray")
    assert len(begun) == count
    for name, steps in begun.items():
        if name.endswith(victim):
            assert len(steps) == 2
            assert steps[0] == 0 < steps[1]
        else:
            assert steps == [0]
    table = (tmp_path / "ray" / "table.csv").read_text().splitlines()
    assert len(table) == 2
    assert f",{count}," in table[1]  # seeds

    code, output = finish(sweep(tmp_path / "local", f"--seeds={found[1]}"))
    assert code == 0, output
    assert [line["step"] for line in lines(folder("local"))] == list(range(20, STEPS + 1, 20))
    assert lines(folder("ray")) == lines(folder("local"))
    assert f"resuming at step {begun[folder('ray').name][1]} of" in (folder("ray") / "run.log").read_text()


@needs_ray
@pytest.mark.slow
def test_a_stopped_sweep_resumes_and_a_run_that_diverges_is_noted(tmp_path):
    arguments = ("--seeds=0,1", "--grid=optimizer.learning_rate=1e30,0.01", *ON_RAY)
    process = sweep(tmp_path, *arguments)
    read_until(process, r"diverged: .* not finite")
    found = read_until(process, r"learning_rate=0.01, seed (\d): starts on")
    folder = next((tmp_path / "runs").glob(f"*=0.01*-seed{found[1]}"))
    wait_for(lambda: checkpoints(folder))
    process.send_signal(signal.SIGTERM)
    code, output = finish(process)
    assert code == 3, output
    assert re.search(r"stopped by SIGTERM: \d of 4 runs are done and the others are saved", output)
    assert (folder / "interrupted.json").is_file()
    saved = json.loads((folder / "interrupted.json").read_text())["step"]
    assert max(checkpoints(folder)) == saved
    text = (tmp_path / "runs.csv").read_text()
    assert text.count(",diverged,") >= 1
    assert text.count(",interrupted,") >= 1

    code, output = finish(sweep(tmp_path, *arguments))
    assert code == 4, output
    assert "2 of 4 runs did not end" in output
    assert starts(tmp_path)[folder.name] == [0, saved]
    for folder in (tmp_path / "runs").glob("*=0.01*"):
        assert lines(folder)[-1]["step"] == STEPS
    assert all(steps == [0] for name, steps in starts(tmp_path).items() if "=1e+30" in name)
    assert not list((tmp_path / "runs").glob(".launch*"))


def test_a_missing_ray_is_refused_in_one_line(tmp_path):
    """A module that cannot be imported stands in for Ray."""
    (tmp_path / "ray.py").write_text("raise ImportError('no module named ray')\n")
    here = {"PYTHONPATH": str(tmp_path)}
    code, output = command(
        "-m", "experiments.depth_sweep", f"--workdir={tmp_path / 'sweep'}", "--launcher=ray", environment=here
    )
    assert code == 2
    assert output.startswith("error: --launcher=ray: Ray is not installed; pip install -r requirements-ray.txt")
    assert len(output.splitlines()) == 1


@needs_ray
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ray_address=host:1", "--ray_workers=2"), "--ray_workers=2 is for a cluster on this machine"),
        (("--ray_address=localhost:9",), "--ray_address=localhost:9: no cluster answers there: "),
        (("--ray_address=ray://h:1",), "--ray_address=ray://h:1: it must be HOST:PORT of the cluster's head"),
        (
            ("--ray_address=local", "--gpus_per_run=1.5"),
            "--gpus_per_run=1.5: give a whole number of GPUs, or a fraction below 1",
        ),
        slow(("--ray_address=local", "--cpus_per_run=1e6"), "no node of the cluster is large enough for a run"),
    ],
)
def test_invalid_flags_of_a_cluster_are_refused(tmp_path, arguments, message):
    code, output = command(
        "-m", "experiments.depth_sweep", f"--workdir={tmp_path / 'sweep'}", "--launcher=ray", *arguments
    )
    assert code == 2, output
    assert message in output
    assert len(output.splitlines()) == 1


def test_a_node_that_does_not_see_the_folder_refuses(tmp_path):
    task = launcher._task(str(tmp_path / "unseen" / ".launch-1"), {})
    [(kind, text)] = task("{}", str(tmp_path), None)
    assert kind == "refused"
    assert f"does not see {tmp_path / 'unseen'}; it must be on a file system that all nodes share" in text


def test_runs_that_share_a_gpu_get_their_share_of_its_memory(monkeypatch):
    """Regression test: jax refuses the old and the new name of the variable beside each other."""
    for name in ("XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION"):
        monkeypatch.setenv(name, "0.9")
    for name, value in launcher._environment(0.5, Cluster(gpus_per_run=0.5)).items():
        monkeypatch.setenv(name, value)
    assert xla_client.generate_pjrt_gpu_plugin_options()["memory_fraction"] == 0.375


def test_a_sweep_that_joins_other_processes_is_refused(tmp_path):
    """Regression test: its processes did not agree between two runs."""
    join = (f"--coordinator=localhost:{free_port()}", "--processes=1", "--process=0")
    code, output = finish(sweep(tmp_path, *join))
    assert code == 2, output
    assert output.splitlines()[-1] == (
        "error: each run of a sweep has its own process; leave out --distributed and --coordinator. train.py trains a "
        "run on several hosts"
    )
    assert not starts(tmp_path)
