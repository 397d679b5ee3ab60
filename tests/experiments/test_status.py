"""The table of the states of runs in a folder."""

import json
import shutil
import sys
from types import SimpleNamespace

import pytest
from absl import flags

from experiments.depth_sweep import EXPERIMENT
from resnet_flax.commands import status as status_command
from resnet_flax.errors import Interrupted, UserError
from resnet_flax.paths import relative
from resnet_flax.reporting import record, status
from resnet_flax.runs import checksums
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.file_names import CHECKPOINTS, INTERRUPTED
from resnet_flax.sweeps import runner
from resnet_flax.sweeps.cases import Request
from tests.commands import command
from tests.experiments.folders import config, run

STEPS = config().train.steps


@pytest.fixture
def folder(tmp_path):
    """The folder of a sweep with five runs: finished, interrupted, diverged, killed, and not begun."""
    runs = {name: tmp_path / "runs" / name for name in ("done", "stopped", "lost", "killed")}
    run(runs["done"], config())
    for name, steps in (("stopped", 90), ("lost", 45), ("killed", 100)):
        run(runs[name], config("plain-20"), steps=steps, lines=5)
    RunDirectory(runs["stopped"]).write_interrupted(90)
    RunDirectory(runs["lost"]).write_diverged(50, "the loss is not finite")
    with open(runs["killed"] / "metrics.jsonl", "a") as file:
        line = {"step": 120, "train_error": 0.25, "images_per_second": 64.0, "seconds": 10.0}
        file.write(json.dumps(line) + '\n{"step": 14')  # The second line was being written when the run was killed.
    (runs["killed"] / CHECKPOINTS / "90").mkdir(parents=True)
    record.write_plan(tmp_path, {**{path: name for name, path in runs.items()}, tmp_path / "runs" / "later": "plain-8"})
    return tmp_path


def test_each_state_is_shown(folder):
    rows = {row[0]: row[1:] for row in status.read(folder).rows}
    assert {name: row[:2] for name, row in rows.items()} == {
        "runs/done": ("finished", f"{STEPS} of {STEPS}"),
        "runs/stopped": ("interrupted at step 90", f"90 of {STEPS}"),
        "runs/lost": ("diverged at step 50", f"45 of {STEPS}"),
        "runs/killed": ("killed or failed after step 120, resumes at step 90", f"120 of {STEPS}"),
        "runs/later": ("not begun", ""),
    }
    assert rows["runs/done"][4:6] == ("5.00%", "10.00%")
    assert rows["runs/killed"][2:6] == ("64", "", "25.00%", "10.00%")  # The test error is that of an earlier line.
    assert rows["runs/done"][6] == RunDirectory(folder / "runs/done").starts()[0]["host"] != ""


def test_a_crash_leaves_its_reason_and_a_kill_does_not(folder):
    """Regression test: both were called a crash, and a run killed while compiling was called "never started"."""
    killed, stopped = folder / "runs/killed", RunDirectory(folder / "runs/stopped")
    (killed / CHECKPOINTS / "90").rename(killed / CHECKPOINTS / "90.orbax-checkpoint-tmp")  # It is not complete.
    checksums.remove(stopped.path / INTERRUPTED)
    stopped.write_crash("Traceback\nOSError: it is: broken\n")
    (folder / "runs/later").mkdir()
    RunDirectory(folder / "runs/later").write_config(config("plain-8"))
    found = status.read(folder)
    rows = {row[0]: row[1] for row in found.rows}
    assert rows["runs/killed"] == "killed or failed after step 120, restarts at step 0"
    assert rows["runs/stopped"] == "crashed after step 90, restarts at step 0: OSError: it is: broken"
    assert rows["runs/later"] == "not begun"
    last = str(found).splitlines()[-1]
    assert last == "5 runs: 1 finished, 1 killed or failed, 1 not begun, 1 diverged, 1 crashed"
    assert found.is_active


def test_a_running_run_has_a_rate_and_the_time_left(folder):
    """The rate is that of its last line, and the time left is computed from it."""
    with RunDirectory(folder / "runs/killed").locked():
        row = next(row for row in status.read(folder).rows if row[0] == "runs/killed")
    left = round((STEPS - 120) * config().train.batch_size / 64)
    assert row[1:5] == ("running", f"120 of {STEPS}", "64", f"{left // 60}:{left % 60:02}")


def test_the_command_prints_the_table(folder):
    code, output = command("-m", "experiments.status", str(folder))
    assert code == 0, output
    with pytest.MonkeyPatch.context() as patch:
        for arguments, workdir in (([], None), ([str(folder)], str(folder)), (["a", "b"], None)):
            patch.setattr("resnet_flax.command.arguments", lambda arguments=arguments: arguments)
            patch.setattr(flags, "FLAGS", SimpleNamespace(workdir=workdir, watch=False))
            with pytest.raises(UserError, match="^name one folder: --workdir=FOLDER, or FOLDER alone$"):
                status_command.main()
    table, last = output.splitlines()[:-1], output.splitlines()[-1]
    assert len({line.index("of") for line in table if " of " in line}) == 1  # The column is aligned.
    assert last == "5 runs: 1 finished, 1 killed or failed, 1 diverged, 1 interrupted, 1 not begun"
    code, output = command("-m", "experiments.status", f"--workdir={folder / 'runs' / 'done'}", "--watch")
    assert (code, output.splitlines()[-1]) == (
        0,
        "1 run: 1 finished",
    )  # --watch ends at once, because the run has ended.
    code, output = command("-m", "experiments.status", f"--workdir={folder / 'nowhere'}")
    assert code == 2
    assert output.startswith("error: --workdir=")
    assert len(output.splitlines()) == 1


@pytest.mark.parametrize("elsewhere", ["--runs", "link"])
def test_planned_runs_outside_of_the_folder_are_read(tmp_path, elsewhere):
    """Regression test: they were shown as not begun, and --watch never ended."""
    folder, scratch = tmp_path / "sweep", tmp_path / "scratch"
    for name, steps in (("done", None), ("now", 90)):
        run(scratch / name, config(), steps=steps)
    folder.mkdir()
    (folder / "runs").symlink_to(scratch)
    runs = folder / "runs" if elsewhere == "link" else scratch
    record.write_plan(folder, {runs / name: name for name in ("done", "now", "later", 300 * "n")})
    with RunDirectory(scratch / "now").locked():
        rows = status.read(folder).rows
    assert [row[:3] for row in rows] == [
        ("../scratch/done", "finished", f"{STEPS} of {STEPS}"),
        ("../scratch/now", "running", f"90 of {STEPS}"),
        ("../scratch/later", "not begun", ""),
        (f"../scratch/{300 * 'n'}", "not begun", ""),  # A file system cannot hold this name.
    ]
    record.write_plan(folder, {runs / "done": "done"})
    assert not status.read(folder).is_active


def test_planned_runs_outside_of_a_folder_behind_a_link_are_read(tmp_path):
    """Regression test: paths were relative to the link's place, but read from the folder's, as for /tmp on macOS."""
    (tmp_path / "deep/er/sweep").mkdir(parents=True)
    link, done = tmp_path / "link", run(tmp_path / "scratch/done", config())
    link.symlink_to(tmp_path / "deep/er/sweep")
    record.write_plan(link, {done: "done"})
    assert [row[1] for row in status.read(link).rows] == ["finished"]
    record.write(record.Record("sweep", "", ""), link, [done])
    assert record.recorded_runs(link) == [done]
    assert relative(done, link) == "../../../scratch/done"


@pytest.mark.parametrize("planned", [True, False])
def test_a_damaged_run_has_a_row_and_is_not_active(folder, planned):
    """Regression test: it was not begun if planned, so that --watch never ended; else it had no row."""
    names = ["done", "stopped"] if planned else []
    record.write_plan(folder, {folder / "runs" / name: name for name in names})
    (folder / "runs/stopped/starts.jsonl").write_text("edited")
    found = status.read(folder)
    [damaged] = [row for row in found.rows if row[0] == "runs/stopped"]
    assert damaged[1].startswith(f"unreadable: {folder.name}/runs/stopped/starts.jsonl: is not as the run wrote it")
    assert str(found).endswith("4 runs: 1 finished, 1 killed or failed, 1 diverged, 1 unreadable")
    assert not found.is_active


def test_a_plan_whose_runs_are_all_damaged(tmp_path):
    record.write_plan(tmp_path, {run(tmp_path / "x", config()): "x"})
    (tmp_path / "x/config.json").write_text("{")
    found = status.read(tmp_path)
    assert [row[1].partition(":")[0] for row in found.rows] == found.states == ["unreadable"]


def test_a_deleted_run_of_an_experiment_has_no_row(folder):
    deleted = run(folder / "runs/deleted", config())
    record.write(record.Record("sweep", "x", "y"), folder, [folder / "runs/done", deleted])
    assert len(status.read(folder).rows) == 6
    shutil.rmtree(deleted)
    assert len(status.read(folder).rows) == 5


def test_an_invalid_plan_is_skipped(folder):
    for text in ("{", "[1]", '{"a": 1}'):
        (folder / record.PLAN).write_text(text)
        assert len(status.read(folder).rows) == (5 if "a" in text else 4)


def test_a_sweep_writes_its_plan_before_the_first_run(tmp_path, monkeypatch, capsys):
    def stopped(runs, request, announcement):
        print(announcement, file=sys.stderr)
        raise Interrupted("a signal")

    monkeypatch.setattr(runner, "execute", stopped)
    settings = SimpleNamespace(grid=["model.depth=8,14", "model.unit=plain"])
    request = Request("configs/digits.py", tmp_path, tmp_path / "runs", seeds=(0, 1), settings=settings)
    with pytest.raises(Interrupted):
        runner.carry_out(EXPERIMENT, "depth_sweep", request)
    assert capsys.readouterr().err == "4 runs: 2 networks x 2 seeds (0, 1)\n"
    assert [row[:2] for row in status.read(tmp_path).rows] == [
        (f"runs/plain-{depth}-seed{seed}", "not begun") for seed in (0, 1) for depth in (8, 14)
    ]
