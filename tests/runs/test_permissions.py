"""Files and folders without permission to read or write: the command ends with one line and exit code 2."""

import shutil

import pytest

from tests.commands import finish, train
from tests.marks import slow

RUN = ("--config.train.batch_size=16", "--config.model.width=0.25", "--config.train.log_every=2",
       "--config.train.eval_every=4", "--config.train.checkpoint_every=4")  # fmt: skip


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    folder = tmp_path_factory.mktemp("begun") / "run"
    code, output = finish(train(folder, *RUN, "--config.train.steps=8"))
    assert code == 0, output
    return folder


def closed(name, mode):
    return lambda run: (run / name).chmod(mode)


def all_arrays(run):
    for path in (run / "checkpoints").rglob("d/*"):
        path.chmod(0)


CASES = [
    (closed(".", 0o555), "Permission denied"),
    (closed("checkpoints", 0o555), "checkpoints: cannot be written: Permission denied"),
    (closed("checkpoints", 0), "checkpoints: cannot be read: Permission denied"),
    (closed("metrics.jsonl", 0), "metrics.jsonl: cannot be read: Permission denied"),
    (closed("starts.jsonl", 0o444), "starts.jsonl: cannot be used: Permission denied"),
    (closed("starts.jsonl", 0), "starts.jsonl: cannot be read: Permission denied"),
    (closed("config.json", 0), "config.json: cannot be read: Permission denied"),
    (closed("sums.json", 0), "sums.json: cannot be read: Permission denied"),
    (closed("preprocessing.json", 0), "preprocessing.json: cannot be read: Permission denied"),
    (all_arrays, "none of its checkpoints (8, 4) can be read"),
]


# `make test` runs one of them; the others are slow.
SOME = [CASES[i] if i == 1 else slow(*CASES[i]) for i in range(len(CASES))]


@pytest.mark.parametrize(("close", "said"), SOME, ids=range(len(CASES)))
def test_training_ends_with_one_line(begun, tmp_path, bound, close, said):
    """With a read-only ``checkpoints`` folder, the process once never ended, and its message blamed the disk space."""
    run = tmp_path / "run"
    shutil.copytree(begun, run)
    close(run)
    code, output = bound(
        "train.py", "--config=configs/digits.py:residual-8", f"--workdir={run}", *RUN, "--config.train.steps=12",
        timeout=60,
    )  # fmt: skip
    assert code == 2, output
    assert "Traceback" not in output
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, output
    assert said in errors[0]
    assert "disk space" not in output


@pytest.mark.parametrize(
    "close",
    [slow(closed("checkpoints", 0)), all_arrays, slow(closed("config.json", 0))],
    ids=range(3),
)
def test_evaluate_ends_with_one_line(begun, tmp_path, bound, close):
    run = tmp_path / "run"
    shutil.copytree(begun, run)
    close(run)
    code, output = bound("-m", "resnet_flax.evaluate", f"--workdir={run}", timeout=60)
    assert code == 2, output
    assert "Traceback" not in output
    assert "Permission denied" in output or "can be read" in output


def test_a_folder_that_becomes_read_only_ends_the_run(tmp_path, bound):
    """The checkpoint writer's waiting thread does not keep the process alive."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys; sys.argv[1:] = []\n"
        "from pathlib import Path\n"
        "import jax.numpy as jnp\n"
        "from resnet_flax import command\n"
        "from resnet_flax.runs import checkpoint_folder, checkpoints\n"
        "def main():\n"
        "    state = {'params': {'a': jnp.zeros(9)}}\n"
        f"    with checkpoints.Checkpoints(Path({str(tmp_path)!r})) as kept:\n"
        "        kept.save(1, state); kept.wait()\n"
        "        checkpoint_folder.check_folder = lambda *_: None\n"  # the folder changes just after the check
        f"        Path({str(tmp_path)!r}, 'checkpoints').chmod(0o555)\n"
        "        kept.save(2, state); kept.wait()\n"
        "command.run(main)\n"
    )
    code, output = bound("-c", f"exec(open({str(program)!r}).read())", timeout=60)
    assert code == 2, output
    [error] = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "a checkpoint cannot be written: Permission denied" in error
    assert "the last complete one is of step 1. Repair that; the same command resumes" in error
