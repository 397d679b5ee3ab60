"""Plans of runs and their directories, checks before the first run, and the execution of runs that fail."""

import dataclasses
import errno
import re

import jax
import pytest
from absl import flags

from experiments import claims, propagation, sweep
from resnet_flax import config as configs
from resnet_flax.errors import Diverged, Failed, UserError
from resnet_flax.launchers import attempt
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.file_names import CHECKPOINTS, CRASH
from resnet_flax.sweeps import execution, options
from resnet_flax.sweeps import plan as plans
from resnet_flax.sweeps.cases import Case, Outcome, PlannedRun, Request
from resnet_flax.tracking.tracker import TENSORBOARD_ALONE
from tests.experiments import folders

SMALL = {
    "train.steps": 4, "train.log_every": 2, "train.eval_every": 4, "model.width": 0.25, "train.batch_size": 16,
    "schedule.milestones": (2, 3),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    return tmp_path


@pytest.fixture
def wanted(folder):
    """The request of a command line without overrides."""
    return Request("configs/digits.py", folder, folder / "runs")


def plan(cases, wanted, seeds=(0,)):
    return plans.plan(cases, dataclasses.replace(wanted, seeds=seeds))


@pytest.fixture
def given(folder, monkeypatch):
    """Returns the request of a command line with these arguments and the workdir."""

    def parse(*arguments, settings=None):
        if not any(argument.startswith("--config=") for argument in arguments):
            arguments = ("--config=configs/digits.py", *arguments)
        arguments = (f"--workdir={folder}", *arguments)
        monkeypatch.setattr("sys.argv", ["experiment", *arguments])  # where config_flags looks for overrides
        values = flags.FlagValues()
        options.define("configs/digits.py", (0,), settings or {}, values)
        values(["experiment", *arguments])
        return options.request_from_flags(settings or {}, values)

    return parse


@pytest.mark.parametrize("key", ["data.folder", "data.data_dir", "data.broken"])
def test_runs_that_differ_only_in_their_images_are_refused(wanted, key):
    """Other keys that may change on resume are accepted, and so are equal images."""
    first, second = ("stop", "skip") if key == "data.broken" else ("A", "B")
    wanted = dataclasses.replace(wanted, config="configs/imagenet.py")

    def planned(key, *values):
        return plan([Case("plain-18", {key: value}) for value in values], wanted)

    shared = rf"{wanted.runs}/plain-18\S*"
    with pytest.raises(UserError, match=f"^{key}={first} and {key}={second}: these runs would share {shared} "):
        planned(key, first, second)
    assert len(planned(key, first, first)) == 1
    assert len(planned("train.metrics", "", "top5_error")) == 1


def test_a_directorys_name_has_the_differences_from_the_config_file(folder, wanted):
    plain, wide = plan(
        [Case("plain-56"), Case("plain-56", {"model.width": 2.0, "optimizer.name": "adamw"})], wanted, (3,)
    )
    assert plain.workdir == folder / "runs" / "plain-56-seed3"
    assert wide.workdir.name == "plain-56-width=2.0-optimizer.name=adamw-seed3"
    assert (plain.label, wide.label) == ("plain-56", "plain-56 model.width=2.0 optimizer.name=adamw")
    assert wide.config.model.width == 2


def test_different_runs_have_different_directories_and_equal_ones_share_one(folder, wanted):
    cases = [
        Case("plain-20"), Case("plain-20", {"model.width": 1.0}), Case("plain-20", {"model.width": 0.5}),
        Case("residual-20"), Case("residual-20", {"model.shortcut": "A"}, "another label"),
    ]  # fmt: skip
    planned = plan(cases, wanted, (0, 1))
    assert len({run.workdir for run in planned}) == len(planned) == 6


def test_a_directorys_name_has_varied_keys_and_no_others_that_change_no_result(folder, given):
    """Varied keys are in the name with default values, too. Keys that change no result are in it only if varied."""
    wanted = given("--config.train.log_every=7", "--config.train.checkpoint_every=9", "--config.model.remat=unit",
                  "--config.data.data_dir=/data", "--config.optimizer.momentum=0.8")  # fmt: skip
    planned = plan([Case("plain-8", {"model.dropout": rate}) for rate in (0.0, 0.5)], wanted)
    assert [run.workdir.name for run in planned] == [
        "plain-8-dropout=0.0-momentum=0.8-seed0", "plain-8-dropout=0.5-momentum=0.8-seed0"
    ]  # fmt: skip
    planned = plan([Case("", {"train.eval_every": every, "model.depth": 8}) for every in (45, 90)], given())
    assert [run.workdir.name for run in planned] == ["residual-8-eval_every=45-seed0", "residual-8-eval_every=90-seed0"]


@pytest.mark.parametrize("earlier", ["plain-8-seed0", "plain-8-log_every=7-seed0", "plain-8-checkpoint_every=9-seed0"])
def test_a_directory_named_by_the_earlier_rule_is_found(folder, given, capsys, earlier):
    """Until 2026-11, names lacked the default values of varied keys, and had keys that change no result."""
    key, _, value = earlier.removesuffix("-seed0").partition("plain-8-")[2].partition("=")
    wanted = given(*[f"--config.train.{key}={value}"] * bool(key))
    [run] = plan([Case("plain-8", {"model.dropout": 0.0})], wanted)
    assert run.workdir.name == "plain-8-dropout=0.0-seed0"
    other = run.config.copy_and_resolve_references()
    other.train.eval_batch_size = 250  # It is in no name, so this directory has the run's present name.
    for workdir, config in {folder / "runs" / earlier: run.config, run.workdir: other}.items():
        workdir.mkdir(parents=True)
        RunDirectory(workdir).write_config(config)
    [found] = plans.locate([run], wanted)
    assert found.workdir == folder / "runs" / earlier
    assert "plain-8 model.dropout=0.0, seed 0: found in" in capsys.readouterr().err


def test_shortened_long_names_are_different(folder, wanted):
    def case(rate):
        return Case("plain-20", {"schedule.milestones": tuple(range(1, 60)), "optimizer.learning_rate": rate})

    a, b = plan([case(0.01), case(0.02)], wanted)
    assert a.workdir != b.workdir
    assert len(a.workdir.name) < 160


def test_an_invalid_case_is_named(folder, wanted):
    with pytest.raises(UserError, match=r"run mine \(seed 0\): model.depth=21"):
        plan([Case("plain-20"), Case("plain-21", label="mine")], wanted)


def test_a_crash_is_noted_and_the_next_run_starts(folder, wanted, monkeypatch, capsys):
    from resnet_flax.training import loop

    real = loop.run

    def crash(config, workdir, *tracking):
        if config.model.unit == "plain":
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return real(config, workdir, *tracking)

    planned = plan([Case("plain-8", SMALL), Case("residual-8", SMALL)], wanted)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "run", crash)
        crashed, fine = execution.execute(planned, wanted)
    assert (crashed.failure, fine.failure) == ("crashed", "")
    assert crashed.reason == (
        "JaxRuntimeError: RESOURCE_EXHAUSTED: out of memory; model.remat=unit or a higher train.accumulate takes less "
        f"memory (see {crashed.run.workdir / CRASH})"
    )
    assert "out of memory" in (crashed.run.workdir / CRASH).read_text()
    assert fine.final["step"] == 4
    with pytest.raises(Failed, match=r"1 of 2 runs did not end: plain-8 .*: crashed"):
        execution.raise_failures([crashed, fine])
    # The machine may have caused the crash, so the same command tries again.
    again, _ = execution.execute(planned, wanted)
    assert again.failure == ""
    assert not (again.run.workdir / CRASH).exists()


def test_a_crash_that_cannot_be_noted_ends_only_its_own_run(tmp_path, monkeypatch):
    """Regression test: on a full disk, the error of the note itself ended the sweep."""

    def fail(*_, **__):
        raise RuntimeError("broken")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(attempt.loop, "run", fail)
    monkeypatch.setattr(RunDirectory, "write_crash", full)
    assert attempt.attempt(folders.config(), tmp_path, TENSORBOARD_ALONE) == ("crashed", "RuntimeError: broken")


def test_a_finished_run_is_finished_whatever_it_did_before(folder, wanted, capsys):
    """Regression test: a note of divergence, which earlier versions did not delete, made sweeps leave the run out."""
    [run] = planned = plan([Case("plain-8", SMALL)], wanted)
    folders.run(run.workdir, run.config, lines=2)
    (run.workdir / CHECKPOINTS / "4").mkdir(parents=True)
    run.directory.write_diverged(1, "the loss is not finite")
    for outcomes in (execution.execute(planned, wanted), execution.read_outcomes(planned)):
        assert [(o.failure, o.final["step"]) for o in outcomes] == [("", 4)]
    plans.print_plan(planned)
    assert capsys.readouterr().out.endswith("seed 0: finished\n")


def test_exit_codes_of_failures(folder, wanted):
    run = plan([Case("plain-8")], wanted)[0]
    diverged, crashed, fine = (Outcome(run, [], 0, 0, failure) for failure in ("diverged", "crashed", ""))
    execution.raise_failures([fine])
    with pytest.raises(Diverged):
        execution.raise_failures([fine, diverged])
    with pytest.raises(Failed):
        execution.raise_failures([diverged, crashed])


def test_runs_can_be_shared(folder, given):
    [run] = plan([Case("plain-8")], given(f"--runs={folder / 'shared'}"))
    assert run.workdir == folder / "shared" / "plain-8-seed0"
    assert given().runs == folder / "runs"


@pytest.mark.parametrize(
    ("argument", "example"), [("--seeds=", "0,1"), ("--depths=", "8,20,32,56"), ("--shallow=", "8,14")]
)
def test_an_empty_list_is_refused(given, argument, example):
    """Regression test: a list from an unset variable of the shell ended in an IndexError."""
    with pytest.raises(UserError) as refusal:
        given(argument, settings=claims.EXPERIMENT.settings)
    assert str(refusal.value) == f"{argument} is empty: give at least one value, such as {example}"


def test_a_list_may_be_empty_where_something_is_left(given):
    settings = given("--decay=", "--dropout=", settings=claims.EXPERIMENT.settings).settings
    assert (settings.decay, settings.dropout) == ((), ())
    settings = given("--units=", "--weights=x.safetensors", settings=propagation.EXPERIMENT.settings).settings
    assert (settings.units, settings.weights) == ((), ("x.safetensors",))
    assert given("--grid=model.depth=8", "--lines=", settings=sweep.EXPERIMENT.settings).settings.lines == ()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("diverged.json", b'{"step": 3, "mess'), ("diverged.json", b"\xff"), ("diverged.json", b"[" * 100_000),
        ("starts.jsonl", b"[1]\n"), ("config.json", b"[]"), ("interrupted.json", b'{"step": "3"}'),
    ],
    ids=range(6),
)  # fmt: skip
def test_a_damaged_directory_is_refused_before_the_first_run(folder, wanted, monkeypatch, name, content):
    from resnet_flax.runs import checksums

    planned = plan([Case("residual-8", SMALL), Case("plain-8", SMALL)], wanted)
    monkeypatch.setattr("resnet_flax.launchers.local.attempt", None)  # A call would fail.
    planned[1].workdir.mkdir(parents=True)
    RunDirectory(planned[1].workdir).write_config(planned[1].config)
    (planned[1].workdir / checksums.FILE).unlink()  # Earlier versions wrote none.
    (planned[1].workdir / name).write_bytes(content)
    with pytest.raises(UserError, match=f"/{name}: is not what a run writes: "):
        execution.execute(planned, wanted)
    assert RunDirectory(planned[0].workdir).config() is None


def test_a_note_of_divergence_without_a_config_is_ignored(folder, wanted):
    from resnet_flax.sweeps.endings import earlier_failure

    [run] = plan([Case("residual-8", SMALL)], wanted)
    run.workdir.mkdir(parents=True)
    (run.workdir / "diverged.json").write_text('{"step": 3, "message": "not finite"}')
    assert earlier_failure(run.config, run.workdir) is None


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "--config.model.depth=8",
            r"--config.model.depth=8: the experiment chooses its networks, and plain-20 would become",
        ),
        ("--config.model.unit=residual", "unit=residual: the experiment chooses .* plain-20 would become residual-20"),
        ("--config.model.stage_units=(1,)", r"stage_units=\(1,\): .* plain-20 would become plain-4"),
        ("--config.model.block=bottleneck", "would become plain-bottleneck-20"),
        ("--config.model.width=2.0", "--config.model.width=2.0: the experiment varies this key"),
        ("--config.seed=5", "give seeds as --seeds=5"),
        ("--config=configs/digits.py:plain-20", ":plain-20: the networks come from the experiment; leave out"),
    ],
)
def test_a_key_that_the_experiment_varies_cannot_be_fixed(given, argument, message):
    wanted = given(argument)
    with pytest.raises(UserError, match=message):
        plan([Case("plain-20"), Case("plain-56", {"model.width": 0.5})], wanted)


def test_a_fixed_key_that_does_not_change_the_network_holds_for_every_run(given):
    wanted = given("--config.model.depth=20", "--config.model.stage_units=(3,3,3)", "--config.model.width=0.5")
    [run] = plan([Case("plain-20")], wanted)
    assert (run.label, run.config.model.depth, run.config.model.width) == ("plain-20", 20, 0.5)


@pytest.mark.parametrize(
    ("argument", "overrides", "label"),
    [
        ("--config=configs/digits.py:plain-14", {}, "plain-14"),
        ("--config=configs/digits.py:plain-14", {"train.batch_size": 16}, "plain-14 train.batch_size=16"),
        ("--config=configs/highway.py", {}, "highway-19"),
        ("--config.model.unit=plain", {"model.depth": 8}, "plain-8"),
        ("--config.train.steps=9", {"model.stage_units": (1,)}, "residual-4 model.stage_units=(1,)"),
        ("--config.model.stage_units=(1,)", {"model.shortcut": "B"}, "residual-4 model.shortcut=B"),
        ("--config.data.image_size=32", {"model.unit": "plain", "model.family": "vgg", "model.depth": 11}, "vgg-11"),
        ("--config=configs/imagenet.py", {"model.depth": 18}, "residual-18"),
    ],
    ids=str,
)  # fmt: skip
def test_labels_and_directories_name_the_network_that_is_trained(given, argument, overrides, label):
    """The label, the directory's name and the config agree on the network of --config with the varied values."""
    wanted = given(argument)
    [run] = plan([Case("", overrides)], wanted)
    assert run.label == label
    network = label.partition(" ")[0]
    assert configs.name_of(run.config.model) == network
    assert run.workdir.name.startswith(f"{network}-")
    for key, value in overrides.items():
        assert configs.flatten(run.config)[key] == value


def test_a_config_file_that_ignores_names_is_refused_for_named_cases(folder, given):
    own = folder / "own.py"
    own.write_text(
        "from resnet_flax import config\ndef get_config(name=''):\n"
        "    c = config.base()\n    c.model.depth = 44\n    return c\n"
    )
    wanted = given(f"--config={own}")
    with pytest.raises(UserError, match=r"own.py: its get_config\('plain-20'\) is the network residual-44"):
        plan([Case("plain-20")], wanted)
    [run] = plan([Case("", {"train.batch_size": 16})], wanted)
    assert (run.label, run.config.model.depth) == ("residual-44 train.batch_size=16", 44)
    assert run.workdir.name == "residual-44-batch_size=16-seed0"


def test_a_grid_over_an_earlier_run(wanted, folder, given):
    [first] = plan([Case("plain-8", SMALL)], wanted)
    (folder / "config.json").write_text(configs.to_json(first.config))
    wanted = given(f"--config=configs/from_json.py:{folder / 'config.json'}")
    [run] = plan([Case("", {"model.depth": 14})], wanted)
    assert (run.label, run.config.train.steps, run.config.model.depth) == ("plain-14", 4, 14)


def test_a_run_under_another_name_is_found(folder, wanted, capsys):
    """The rule for names of directories may change. Damaged directories are skipped."""
    planned = plan([Case("plain-8", SMALL), Case("residual-8", SMALL)], wanted)
    for name in ("an-older-name", "longer", "damaged", "another"):
        (folder / "runs" / name).mkdir(parents=True)
    RunDirectory(folder / "runs" / "an-older-name").write_config(planned[0].config)
    other = planned[1].config.copy_and_resolve_references()
    other.train.steps = 5
    RunDirectory(folder / "runs" / "longer").write_config(other)
    for name, content in (("damaged", b"\xff"), ("another", b"[]")):
        (folder / "runs" / name / "config.json").write_bytes(content)
    (folder / "runs" / "file").write_text("")
    plain, residual = plans.locate(planned, wanted)
    assert plain.workdir == folder / "runs" / "an-older-name"
    assert residual == planned[1]
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        str(folder / "runs" / "another" / "config.json"), str(folder / "runs" / "damaged" / "config.json"),
        "plain-8 train.steps=4 train.log_every=2 train.eval_every=4 model.width=0.25 train.batch_size=16 "
        "schedule.milestones=(2, 3), seed 0",
    ]  # fmt: skip
    # The run's own name takes precedence.
    planned[0].workdir.mkdir()
    RunDirectory(planned[0].workdir).write_config(planned[0].config)
    assert plans.locate(planned, wanted) == planned


def test_an_existing_run_that_cannot_be_resumed_is_skipped(folder, wanted, begun_before, capsys):
    import shutil

    old = folder / "runs" / "old"
    shutil.copytree(begun_before / "interrupted_average", old)
    config = configs.resolve(RunDirectory(old).config())
    run = PlannedRun(config, folder / "runs" / "new", "label")
    assert plans.locate([run], wanted) == [run]
    assert (
        f"label, seed 0: skipped an existing run: --workdir={old} holds a run that cannot be resumed"
        in capsys.readouterr().err
    )


def test_every_run_is_checked_before_the_first(folder, wanted, monkeypatch):
    """Batches, names of data, weights and sizes are checked, and the message names everything that is wrong."""
    monkeypatch.setattr("resnet_flax.launchers.local.attempt", None)  # A call would fail.
    wrong = {
        "train.bn_group=5": r"train.bn_group=5 does not fit train.batch_size=16 on 8 devices",
        "train.accumulate=3": r"train.accumulate=3 must divide the 2 images of a device",
        "data.name=digitz": r"digitz",
        "data.validation=5000": r"data.validation=5000",
        "data.normalization=imagenet": r"'imagenet' needs images with 3 channels, but these have 1",
        "init.weights=nowhere.pth": r"nowhere.pth: there is no such file",
        "train.batch_size=2000000000": r"train.batch_size=2000000000: .* of memory",
        "model.stage_filters=(8, 4, 2)": r"option A cannot narrow 2 channels to 1",
    }
    values = dict(text.split("=") for text in wrong)
    values |= {"train.bn_group": 5, "train.accumulate": 3, "data.validation": 5000, "train.batch_size": 2 * 10**9}
    values |= {"model.stage_filters": (8, 4, 2)}
    del values["init.weights"], wrong["init.weights=nowhere.pth"]  # The plan itself reads weights.
    cases = [Case("plain-8", SMALL), *(Case("residual-8", SMALL | {"train.steps": 2, k: v}) for k, v in values.items())]
    with pytest.raises(UserError) as found:
        execution.execute(plan(cases, wanted), wanted)
    for message in wrong.values():
        assert re.search(message, str(found.value)), found.value
    assert "plain-8" not in str(found.value)
    assert not (folder / "runs").exists()


def test_a_problem_of_several_runs_is_reported_once(folder, wanted):
    cases = [Case(f"{unit}-8", SMALL | {"data.name": "digitz"}, unit) for unit in ("plain", "residual")]
    with pytest.raises(UserError, match="^plain, seed 0, residual, seed 0: data.name='digitz'") as found:
        execution.execute(plan(cases, wanted), wanted)
    assert str(found.value).count("digitz'") == 1


def test_a_run_that_is_refused_at_its_start_is_noted_and_the_next_one_starts(folder, wanted, monkeypatch):
    from resnet_flax.training import loop

    real = loop.run

    def refuse(config, workdir, *tracking):
        if config.model.unit == "plain":
            raise UserError(f"{workdir}: cannot be written: No space left on device")
        return real(config, workdir, *tracking)

    monkeypatch.setattr(loop, "run", refuse)
    refused, fine = execution.execute(plan([Case("plain-8", SMALL), Case("residual-8", SMALL)], wanted), wanted)
    assert (refused.failure, fine.failure, fine.final["step"]) == ("failed", "", 4)
    assert refused.reason.endswith("No space left on device")
    with pytest.raises(Failed, match=r"1 of 2 runs did not end: plain-8 .*: failed"):
        execution.raise_failures([refused, fine])


@pytest.mark.slow  # 20 s; test_fine_tuning.py starts from weights and resumes without them, too
def test_runs_from_weights_are_found_and_finished_ones_are_skipped(wanted, folder, given, tmp_path, capsys):
    """Their configs have settings adopted from the weights, which are not on the command line."""
    from resnet_flax import model
    from resnet_flax.interchange import files, names
    from resnet_flax.training import loop

    [first] = plan([Case("residual-8", SMALL | {"model.shortcut": "B"})], wanted)
    loop.run(first.config, first.workdir)
    weights = tmp_path / "weights.safetensors"
    found = model.from_run(first.workdir)
    tensors = names.to_tensors(found.network, found.preprocessing.image_shape, found.variables, "cifar")
    files.write(weights, tensors, configs.to_json(found.config), found.preprocessing.to_json())
    wanted = given(f"--config.init.weights={weights}")
    [run] = plan([Case("residual-8", SMALL)], wanted)
    assert run.config.model.shortcut == "B"  # adopted from the weights
    [outcome] = execution.execute([run], wanted)
    assert (outcome.failure, outcome.final["step"]) == ("", 4)
    before = (run.workdir / "starts.jsonl").read_text()
    [again] = plans.locate(plan([Case("residual-8", SMALL)], wanted), wanted)
    assert again == run
    plans.print_plan([again])
    assert capsys.readouterr().out.endswith(": finished\n")
    assert execution.execute([again], wanted)[0].final["step"] == 4
    assert (run.workdir / "starts.jsonl").read_text() == before


def test_the_numbers_of_a_list_have_bounds(given):
    """Regression test: they had them only from Python."""
    settings = {"rates": options.Setting((0.5,), "Rates.", least=0, most=1)}
    assert given("--rates=0,1", settings=settings).settings.rates == (0, 1)
    for rate, refusal in (("-1", "--rates=-1.0 must be at least 0"), ("0.5,2", "--rates=2.0 must be at most 1")):
        with pytest.raises(UserError) as error:
            given(f"--rates={rate}", settings=settings)
        assert str(error.value) == refusal
