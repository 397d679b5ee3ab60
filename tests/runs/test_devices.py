"""Eight devices, and two processes, learn what one device learns."""

import pytest

from tests.commands import finish, free_port, lines, train

FLOAT32 = ("--config.train.steps=5", "--config.train.log_every=1", "--config.schedule.name=constant")
FLOAT64 = (
    "--config.train.steps=60", "--config.train.log_every=1", "--config.schedule.name=constant",
    "--config.model.dtype=float64", "--config.model.param_dtype=float64",
)  # fmt: skip
CASES = {"float32": (FLOAT32, {}, 1e-5), "float64": (FLOAT64, {"JAX_ENABLE_X64": "1"}, 1e-10)}


def losses(workdir):
    return [line["train_loss"] for line in lines(workdir)]


@pytest.fixture(scope="module", params=CASES)
def one_device(request, tmp_path_factory):
    arguments, environment, tolerance = CASES[request.param]
    workdir = tmp_path_factory.mktemp(request.param) / "one"
    code, output = finish(train(workdir, *arguments, name="residual-20", environment=environment))
    assert code == 0, output
    return arguments, environment, tolerance, losses(workdir)


def test_eight_devices(tmp_path, one_device):
    arguments, environment, tolerance, expected = one_device
    code, output = finish(train(tmp_path, *arguments, name="residual-20", devices=8, environment=environment))
    assert code == 0, output
    assert "on 8 cpu" in output
    assert losses(tmp_path) == pytest.approx(expected, rel=tolerance)
    assert len(expected) in (5, 60)


def two_processes(workdir, *arguments, **keys):
    join = (f"--coordinator=localhost:{free_port()}", "--processes=2")
    processes = [train(workdir, *arguments, *join, f"--process={i}", **keys) for i in range(2)]
    return [finish(p) for p in processes]


def test_two_processes(tmp_path, one_device):
    arguments, environment, tolerance, expected = one_device
    for code, output in two_processes(tmp_path, *arguments, name="residual-20", environment=environment):
        assert code == 0, output
    assert losses(tmp_path) == pytest.approx(expected, rel=tolerance)


def test_two_processes_go_on_where_they_stopped(tmp_path, one_device):
    """Half of the steps, then all of them: the second start reads the checkpoint that both wrote."""
    arguments, environment, tolerance, expected = one_device
    half = len(expected) // 2
    for steps in (half, len(expected)):
        given = (*arguments, f"--config.train.steps={steps}")
        for code, output in two_processes(tmp_path, *given, name="residual-20", environment=environment):
            assert code == 0, output
    assert losses(tmp_path) == pytest.approx(expected, rel=tolerance)


def test_a_mistake_that_one_process_finds_ends_both(tmp_path):
    results = two_processes(tmp_path, "--config.train.batch_size=17")
    assert [code for code, _ in results] == [2, 2]
    assert all("train.batch_size=17 is not divisible by the 2 devices; 16 or 18 would be" in o for _, o in results)
