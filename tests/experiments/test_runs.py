"""Plans of runs: their folders, and what becomes of a run that crashes."""

import pytest
from absl import flags

from experiments import options, runs
from experiments.launchers.attempt import CRASH
from experiments.runs import Case, Outcome
from resnet_flax.errors import Diverged, Failed, UserError

SMALL = {
    "train.steps": 4, "train.log_every": 2, "train.eval_every": 4, "model.width": 0.25, "train.batch_size": 16,
    "schedule.milestones": (2,),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """The flags of an experiment, as parsed from a command line."""
    flags.FLAGS.unparse_flags()
    flags.FLAGS(["experiment", f"--workdir={tmp_path}"])
    yield tmp_path
    flags.FLAGS.unparse_flags()


def test_a_folder_says_what_differs_from_the_config_file(folder):
    plain, wide = runs.plan([Case("plain-56"), Case("plain-56", {"model.width": 2.0, "optimizer.name": "adamw"})], [3])
    assert plain.workdir == folder / "runs" / "plain-56-seed3"
    assert wide.workdir.name == "plain-56-width=2.0-optimizer.name=adamw-seed3"
    assert (plain.label, wide.label) == ("plain-56", "plain-56 model.width=2.0 optimizer.name=adamw")
    assert wide.config.model.width == 2


def test_other_runs_have_other_folders_and_the_same_run_has_one(folder):
    cases = [
        Case("plain-20"), Case("plain-20", {"model.width": 1.0}), Case("plain-20", {"model.width": 0.5}),
        Case("residual-20"), Case("residual-20", {"model.shortcut": "A"}, "another label"),
    ]  # fmt: skip
    planned = runs.plan(cases, [0, 1])
    assert len({run.workdir for run in planned}) == len(planned) == 6


def test_long_names_stay_apart(folder):
    def case(rate):
        return Case("plain-20", {"schedule.milestones": tuple(range(1, 60)), "optimizer.learning_rate": rate})

    a, b = runs.plan([case(0.01), case(0.02)], [0])
    assert a.workdir != b.workdir
    assert len(a.workdir.name) < 160


def test_a_case_that_cannot_be_is_named(folder):
    with pytest.raises(UserError, match=r"run mine \(seed 0\): model.depth=21"):
        runs.plan([Case("plain-20"), Case("plain-21", label="mine")], [0])


def test_a_crash_is_noted_and_the_next_run_starts(folder, monkeypatch, capsys):
    from resnet_flax.training import loop

    real = loop.run

    def crash(config, workdir):
        if config.model.unit == "plain":
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return real(config, workdir)

    planned = runs.plan([Case("plain-8", SMALL), Case("residual-8", SMALL)], [0])
    with monkeypatch.context() as patch:
        patch.setattr(loop, "run", crash)
        crashed, fine = runs.execute(planned)
    assert (crashed.failure, fine.failure) == ("crashed", "")
    assert "RuntimeError: RESOURCE_EXHAUSTED: out of memory" in crashed.reason
    assert "out of memory" in (crashed.run.workdir / CRASH).read_text()
    assert fine.final["step"] == 4
    with pytest.raises(Failed, match=r"1 of 2 runs did not end: plain-8 .*: crashed"):
        runs.raise_failures([crashed, fine])
    # A crash may have been the machine's fault: the same command tries again.
    again, _ = runs.execute(planned)
    assert again.failure == ""
    assert not (again.run.workdir / CRASH).exists()


def test_exit_codes_of_failures(folder):
    run = runs.plan([Case("plain-8")], [0])[0]
    diverged, crashed, fine = (Outcome(run, [], 0, 0, failure) for failure in ("diverged", "crashed", ""))
    runs.raise_failures([fine])
    with pytest.raises(Diverged):
        runs.raise_failures([fine, diverged])
    with pytest.raises(Failed):
        runs.raise_failures([diverged, crashed])


def test_runs_can_be_shared(folder):
    flags.FLAGS["runs"].value = str(folder / "shared")
    try:
        assert runs.plan([Case("plain-8")], [0])[0].workdir == folder / "shared" / "plain-8-seed0"
    finally:
        flags.FLAGS["runs"].value = None
    assert options.runs_folder() == folder / "runs"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("diverged.json", b'{"step": 3, "mess'), ("diverged.json", b"\xff"), ("diverged.json", b"[" * 100_000),
        ("starts.jsonl", b"[1]\n"), ("config.json", b"[]"), ("interrupted.json", b'{"step": "3"}'),
    ],
    ids=range(6),
)  # fmt: skip
def test_a_damaged_folder_is_one_line_before_the_first_run(folder, monkeypatch, name, content):
    from resnet_flax import run_files, sums
    from resnet_flax.training import workdir as folders

    planned = runs.plan([Case("residual-8", SMALL), Case("plain-8", SMALL)], [0])
    monkeypatch.setattr("experiments.launchers.local.attempt", None)  # a call would fail
    planned[1].workdir.mkdir(parents=True)
    folders.write_config(planned[1].workdir, planned[1].config)
    (planned[1].workdir / sums.FILE).unlink()  # as an earlier version left it
    (planned[1].workdir / name).write_bytes(content)
    with pytest.raises(UserError, match=f"/{name}: is not what a run writes: "):
        runs.execute(planned)
    assert run_files.RunFiles(planned[0].workdir).config() is None


def test_a_note_of_divergence_without_a_config_says_nothing(folder):
    from experiments.launchers.attempt import earlier_failure

    [run] = runs.plan([Case("residual-8", SMALL)], [0])
    run.workdir.mkdir(parents=True)
    (run.workdir / "diverged.json").write_text('{"step": 3, "message": "not finite"}')
    assert earlier_failure(run.config, run.workdir) is None
