"""A sweep as a user meets it: it resumes after a kill, notes failed runs, and refuses invalid grids."""

import csv
import re
import shlex
import signal

import pytest

from resnet_flax.reporting import record
from tests.commands import command, finish, lines, start
from tests.marks import slow

SMALL = (
    "--config.train.steps=12", "--config.train.log_every=4", "--config.train.eval_every=6",
    "--config.train.checkpoint_every=4", "--config.model.width=0.25", "--config.train.batch_size=16",
    "--config.schedule.milestones=(6,9)",
)  # fmt: skip


def sweep(*arguments):
    return ("-m", "experiments.depth_sweep", *SMALL, *arguments)


def started(folder):
    """Returns how often each run was started, by the name of its directory."""
    return {p.parent.name: len(p.read_text().splitlines()) for p in folder.glob("runs/*/starts.jsonl")}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_sweep_resumes_and_repeats_no_finished_run(tmp_path):
    arguments = sweep(
        "--grid=model.depth=8,14,20", "--grid=model.unit=plain,residual", "--seeds=0,1", f"--workdir={tmp_path}"
    )
    process = start(*arguments)
    for line in process.stdout:
        if line.startswith("run 6 of 12") or "run 6 of" in line:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = {name for name in started(tmp_path) if lines(tmp_path / "runs" / name)[-1]["step"] == 12}
    assert 5 <= len(finished) < 12
    before = {name: lines(tmp_path / "runs" / name, without=()) for name in finished}
    # The killed sweep has drawn no figure, and its plan has the flags.
    code, output = command("-m", "experiments.depth_sweep", f"--workdir={tmp_path}", "--draw")
    assert code == 0, output
    with open(tmp_path / "runs.csv") as file:
        assert sum(row["state"] == "finished" for row in csv.DictReader(file)) == len(finished)
    assert (tmp_path / "depth.png").is_file()

    code, output = finish(start(*arguments), timeout=600)
    assert code == 0, output
    assert len(started(tmp_path)) == 12
    for name in finished:  # Even the seconds are the same, so no line was written again.
        assert lines(tmp_path / "runs" / name, without=()) == before[name]
        assert started(tmp_path)[name] == 1
    assert output.count("already finished, at step 12") == len(finished)
    assert re.search(r"run 12 of 12: .*; about \d+:\d\d left in total", output)
    found = record.read(tmp_path)
    assert len(found.runs) == 12
    assert all((tmp_path / figure.file).stat().st_size > 10_000 for figure in found.figures)
    assert "± " in (tmp_path / "table.md").read_text()
    assert found.command.endswith(shlex.join(arguments))


def test_draw_repeats_the_flags_of_a_killed_sweep(tmp_path, monkeypatch):
    given = sweep("--grid=model.depth=14", "--grid=model.unit=plain", "--seeds=3", f"--workdir={tmp_path}")
    monkeypatch.setattr(record, "command", lambda: shlex.join(["python", *given]))
    record.write_plan(tmp_path, {})
    code, output = command("-m", "experiments.depth_sweep", f"--workdir={tmp_path}", "--draw")
    assert code == 0, output
    with open(tmp_path / "runs.csv") as file:
        [row] = csv.DictReader(file)
    assert (row["run"], row["seed"], row["state"]) == ("plain-14", "3", "not begun")
    assert "steps=12" in row["folder"]
    assert record.read(tmp_path).command.endswith(shlex.join(given))


@pytest.mark.slow
def test_a_run_that_diverges_is_noted_and_the_others_continue(tmp_path):
    arguments = sweep(
        "--grid=model.depth=8", "--grid=model.unit=plain", "--grid=optimizer.learning_rate=1e30,0.005", "--seeds=0",
        f"--workdir={tmp_path}",
    )  # fmt: skip
    code, output = command(*arguments)
    assert code == 4, output
    assert "1 of 2 runs did not end" in output
    bad, good = (tmp_path / "table.csv").read_text().splitlines()[1:]
    assert "1e+30" in bad
    assert "1 (1 diverged)" in bad
    assert "0.005" in good
    assert "diverged" not in good
    # The second time, it is not started again, but still noted.
    code, output = command(*arguments)
    assert code == 4
    assert max(started(tmp_path).values()) == 1
    assert "1 (1 diverged)" in (tmp_path / "table.csv").read_text()


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("model.dept=8", "--grid model.dept=8: config has no key 'model.dept'; did you mean model.depth"),
        (
            "model.depth=8,many",
            "--grid model.depth=8,many: 'many' is not a value of model.depth; it must be an int, such as 20",
        ),
        ("model.depth=8,21", "run residual-21 (seed 0): model.depth=21 is no basic network of the cifar family"),
        ("model.unit=plain,residul", "model.unit='residul' is not known; choose one of plain, residual"),
        slow("model.unroll=perhaps", "'perhaps' is not a value of model.unroll; it must be a bool, such as False"),
        slow("model.shortcut=A,D", "model.shortcut='D' is not known; choose one of A, B, C"),
        ("seed=1,2", "give seeds as --seeds=1,2"),
        slow("model.depth", "--grid 'model.depth' is not of the form KEY=VALUE,VALUE,..."),
    ],
)
def test_an_invalid_grid_is_refused_before_the_first_run(tmp_path, grid, message):
    code, output = command(*sweep(f"--grid={grid}", "--seeds=0", f"--workdir={tmp_path / 'sweep'}"))
    assert code == 2, output
    assert message in output
    assert len(output.strip().splitlines()) == 1
    assert not (tmp_path / "sweep").exists()


def test_a_key_in_two_grids_is_refused(tmp_path):
    code, output = command(*sweep("--grid=model.depth=8", "--grid=model.depth=14", f"--workdir={tmp_path}"))
    assert code == 2
    assert "--grid names model.depth more than once" in output


def test_dry_run_prints_the_runs_and_does_nothing(tmp_path):
    arguments = sweep("--grid=model.depth=8,14", "--grid=model.shortcut=A,B", "--seeds=0,1", "--dry-run")
    code, output = command(*arguments, f"--workdir={tmp_path}")
    assert code == 0, output
    assert output.count("12 steps") == 8
    assert list(tmp_path.iterdir()) == []
