"""Plans of runs: their folders, and what becomes of a run that crashes."""

import dataclasses
import re

import pytest
from absl import flags

from resnet_flax import config as configs
from resnet_flax.errors import Diverged, Failed, UserError
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.file_names import CRASH
from resnet_flax.sweeps import execution, options
from resnet_flax.sweeps import plan as plans
from resnet_flax.sweeps.cases import Asked, Case, Outcome, Run

SMALL = {
    "train.steps": 4, "train.log_every": 2, "train.eval_every": 4, "model.width": 0.25, "train.batch_size": 16,
    "schedule.milestones": (2, 3),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    return tmp_path


@pytest.fixture
def asked(folder):
    """What a command line without overrides asks for."""
    return Asked("configs/digits.py", folder, folder / "runs")


def plan(cases, asked, seeds=(0,)):
    return plans.plan(cases, dataclasses.replace(asked, seeds=seeds))


@pytest.fixture
def given(folder, monkeypatch):
    """What a command line with these arguments beside the folder of the experiment asks for."""

    def parse(*arguments):
        if not any(argument.startswith("--config=") for argument in arguments):
            arguments = ("--config=configs/digits.py", *arguments)
        arguments = (f"--workdir={folder}", *arguments)
        monkeypatch.setattr("sys.argv", ["experiment", *arguments])  # where config_flags looks for overrides
        values = flags.FlagValues()
        options.define("configs/digits.py", (0,), {}, values)
        values(["experiment", *arguments])
        return options.asked({}, values)

    return parse


def test_a_folder_says_what_differs_from_the_config_file(folder, asked):
    plain, wide = plan(
        [Case("plain-56"), Case("plain-56", {"model.width": 2.0, "optimizer.name": "adamw"})], asked, (3,)
    )
    assert plain.workdir == folder / "runs" / "plain-56-seed3"
    assert wide.workdir.name == "plain-56-width=2.0-optimizer.name=adamw-seed3"
    assert (plain.label, wide.label) == ("plain-56", "plain-56 model.width=2.0 optimizer.name=adamw")
    assert wide.config.model.width == 2


def test_other_runs_have_other_folders_and_the_same_run_has_one(folder, asked):
    cases = [
        Case("plain-20"), Case("plain-20", {"model.width": 1.0}), Case("plain-20", {"model.width": 0.5}),
        Case("residual-20"), Case("residual-20", {"model.shortcut": "A"}, "another label"),
    ]  # fmt: skip
    planned = plan(cases, asked, (0, 1))
    assert len({run.workdir for run in planned}) == len(planned) == 6


def test_a_folder_names_what_is_varied_and_no_bookkeeping(folder, given):
    """The default value of a grid, too; of what changes no result, only what the experiment varies."""
    asked = given("--config.train.log_every=7", "--config.train.checkpoint_every=9", "--config.model.remat=unit",
                  "--config.data.data_dir=/data", "--config.optimizer.momentum=0.8")  # fmt: skip
    planned = plan([Case("plain-8", {"model.dropout": rate}) for rate in (0.0, 0.5)], asked)
    assert [run.workdir.name for run in planned] == [
        "plain-8-dropout=0.0-momentum=0.8-seed0", "plain-8-dropout=0.5-momentum=0.8-seed0"
    ]  # fmt: skip
    planned = plan([Case("", {"train.eval_every": every, "model.depth": 8}) for every in (45, 90)], given())
    assert [run.workdir.name for run in planned] == ["residual-8-eval_every=45-seed0", "residual-8-eval_every=90-seed0"]


@pytest.mark.parametrize("earlier", ["plain-8-seed0", "plain-8-log_every=7-seed0", "plain-8-checkpoint_every=9-seed0"])
def test_a_folder_that_was_named_by_the_earlier_rule_is_found(folder, given, capsys, earlier):
    """Until 2026-11 a grid's default value had no part of the name, and bookkeeping had."""
    key, _, value = earlier.removesuffix("-seed0").partition("plain-8-")[2].partition("=")
    asked = given(*[f"--config.train.{key}={value}"] * bool(key))
    [run] = plan([Case("plain-8", {"model.dropout": 0.0})], asked)
    assert run.workdir.name == "plain-8-dropout=0.0-seed0"
    other = run.config.copy_and_resolve_references()
    other.train.keep_checkpoints = 5  # bookkeeping: of the name that is now the run's
    for workdir, config in {folder / "runs" / earlier: run.config, run.workdir: other}.items():
        workdir.mkdir(parents=True)
        RunDirectory(workdir).write_config(config)
    [found] = plans.located([run], asked)
    assert found.workdir == folder / "runs" / earlier
    assert "plain-8 model.dropout=0.0, seed 0: found in" in capsys.readouterr().err


def test_long_names_stay_apart(folder, asked):
    def case(rate):
        return Case("plain-20", {"schedule.milestones": tuple(range(1, 60)), "optimizer.learning_rate": rate})

    a, b = plan([case(0.01), case(0.02)], asked)
    assert a.workdir != b.workdir
    assert len(a.workdir.name) < 160


def test_a_case_that_cannot_be_is_named(folder, asked):
    with pytest.raises(UserError, match=r"run mine \(seed 0\): model.depth=21"):
        plan([Case("plain-20"), Case("plain-21", label="mine")], asked)


def test_a_crash_is_noted_and_the_next_run_starts(folder, asked, monkeypatch, capsys):
    from resnet_flax.training import loop

    real = loop.run

    def crash(config, workdir, *tracking):
        if config.model.unit == "plain":
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return real(config, workdir, *tracking)

    planned = plan([Case("plain-8", SMALL), Case("residual-8", SMALL)], asked)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "run", crash)
        crashed, fine = execution.execute(planned, asked)
    assert (crashed.failure, fine.failure) == ("crashed", "")
    assert "RuntimeError: RESOURCE_EXHAUSTED: out of memory" in crashed.reason
    assert "out of memory" in (crashed.run.workdir / CRASH).read_text()
    assert fine.final["step"] == 4
    with pytest.raises(Failed, match=r"1 of 2 runs did not end: plain-8 .*: crashed"):
        execution.raise_failures([crashed, fine])
    # A crash may have been the machine's fault: the same command tries again.
    again, _ = execution.execute(planned, asked)
    assert again.failure == ""
    assert not (again.run.workdir / CRASH).exists()


def test_exit_codes_of_failures(folder, asked):
    run = plan([Case("plain-8")], asked)[0]
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
    ("name", "content"),
    [
        ("diverged.json", b'{"step": 3, "mess'), ("diverged.json", b"\xff"), ("diverged.json", b"[" * 100_000),
        ("starts.jsonl", b"[1]\n"), ("config.json", b"[]"), ("interrupted.json", b'{"step": "3"}'),
    ],
    ids=range(6),
)  # fmt: skip
def test_a_damaged_folder_is_one_line_before_the_first_run(folder, asked, monkeypatch, name, content):
    from resnet_flax.runs import checksums

    planned = plan([Case("residual-8", SMALL), Case("plain-8", SMALL)], asked)
    monkeypatch.setattr("resnet_flax.launchers.local.attempt", None)  # a call would fail
    planned[1].workdir.mkdir(parents=True)
    RunDirectory(planned[1].workdir).write_config(planned[1].config)
    (planned[1].workdir / checksums.FILE).unlink()  # as an earlier version left it
    (planned[1].workdir / name).write_bytes(content)
    with pytest.raises(UserError, match=f"/{name}: is not what a run writes: "):
        execution.execute(planned, asked)
    assert RunDirectory(planned[0].workdir).config() is None


def test_a_note_of_divergence_without_a_config_says_nothing(folder, asked):
    from resnet_flax.sweeps.endings import earlier_failure

    [run] = plan([Case("residual-8", SMALL)], asked)
    run.workdir.mkdir(parents=True)
    (run.workdir / "diverged.json").write_text('{"step": 3, "message": "not finite"}')
    assert earlier_failure(run.config, run.workdir) is None


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.model.depth=8", r"--config.model.depth=8: the experiment names its networks, here plain-20, which"),
        ("--config.model.unit=residual", "unit=residual: the experiment names .* plain-20, which would be residual-20"),
        ("--config.model.stage_units=(1,)", r"stage_units=\(1,\): .* here plain-20, which would be plain-4"),
        ("--config.model.block=bottleneck", "would be plain-bottleneck-20"),
        ("--config.model.width=2.0", "--config.model.width=2.0: the experiment varies it"),
        ("--config.seed=5", "give seeds as --seeds=5"),
        ("--config=configs/digits.py:plain-20", ":plain-20: the networks come from the experiment; leave out"),
    ],
)
def test_what_the_experiment_varies_is_not_fixed(given, argument, message):
    asked = given(argument)
    with pytest.raises(UserError, match=message):
        plan([Case("plain-20"), Case("plain-56", {"model.width": 0.5})], asked)


def test_a_fixed_key_that_changes_no_network_holds_for_every_run(given):
    asked = given("--config.model.depth=20", "--config.model.stage_units=(3,3,3)", "--config.model.width=0.5")
    [run] = plan([Case("plain-20")], asked)
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
def test_a_label_says_what_runs(given, argument, overrides, label):
    """The network of --config with what is varied: its label, its folder's name and its config agree."""
    asked = given(argument)
    [run] = plan([Case("", overrides)], asked)
    assert run.label == label
    network = label.partition(" ")[0]
    assert configs.name_of(run.config.model) == network
    assert run.workdir.name.startswith(f"{network}-")
    for key, value in overrides.items():
        assert configs.flatten(run.config)[key] == value


def test_a_config_file_that_ignores_its_name_is_no_file_for_names(folder, given):
    own = folder / "own.py"
    own.write_text(
        "from resnet_flax import config\ndef get_config(name=''):\n"
        "    c = config.base()\n    c.model.depth = 44\n    return c\n"
    )
    asked = given(f"--config={own}")
    with pytest.raises(UserError, match=r"own.py: its get_config\('plain-20'\) is the network residual-44"):
        plan([Case("plain-20")], asked)
    [run] = plan([Case("", {"train.batch_size": 16})], asked)
    assert (run.label, run.config.model.depth) == ("residual-44 train.batch_size=16", 44)
    assert run.workdir.name == "residual-44-batch_size=16-seed0"


def test_a_grid_over_an_earlier_run(asked, folder, given):
    [first] = plan([Case("plain-8", SMALL)], asked)
    (folder / "config.json").write_text(configs.to_json(first.config))
    asked = given(f"--config=configs/from_json.py:{folder / 'config.json'}")
    [run] = plan([Case("", {"model.depth": 14})], asked)
    assert (run.label, run.config.train.steps, run.config.model.depth) == ("plain-14", 4, 14)


def test_a_run_of_another_name_is_found(folder, asked, capsys):
    """Folders are named by a rule that may change; damaged ones beside it are passed over."""
    planned = plan([Case("plain-8", SMALL), Case("residual-8", SMALL)], asked)
    for name in ("an-older-name", "longer", "damaged", "another"):
        (folder / "runs" / name).mkdir(parents=True)
    RunDirectory(folder / "runs" / "an-older-name").write_config(planned[0].config)
    other = planned[1].config.copy_and_resolve_references()
    other.train.steps = 5
    RunDirectory(folder / "runs" / "longer").write_config(other)
    for name, content in (("damaged", b"\xff"), ("another", b"[]")):
        (folder / "runs" / name / "config.json").write_bytes(content)
    (folder / "runs" / "file").write_text("")
    plain, residual = plans.located(planned, asked)
    assert plain.workdir == folder / "runs" / "an-older-name"
    assert residual == planned[1]
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        str(folder / "runs" / "another" / "config.json"), str(folder / "runs" / "damaged" / "config.json"),
        "plain-8 train.steps=4 train.log_every=2 train.eval_every=4 model.width=0.25 train.batch_size=16 "
        "schedule.milestones=(2, 3), seed 0",
    ]  # fmt: skip
    # Its own name comes first.
    planned[0].workdir.mkdir()
    RunDirectory(planned[0].workdir).write_config(planned[0].config)
    assert plans.located(planned, asked) == planned


def test_a_found_run_that_cannot_be_resumed_is_passed_over(folder, asked, begun_before, capsys):
    import shutil

    old = folder / "runs" / "old"
    shutil.copytree(begun_before / "interrupted_average", old)
    config = configs.resolve(RunDirectory(old).config())
    run = Run(config, folder / "runs" / "new", "label")
    assert plans.located([run], asked) == [run]
    assert f"label, seed 0: passed over: --workdir={old} holds a run that cannot be resumed" in capsys.readouterr().err


def test_every_run_is_checked_before_the_first(folder, asked, monkeypatch):
    """Everything that can be known: devices' shares, names of data, weights, sizes; all that is wrong is named."""
    monkeypatch.setattr("resnet_flax.launchers.local.attempt", None)  # a call would fail
    wrong = {
        "train.bn_group=5": r"train.bn_group=5 does not fit train.batch_size=16 on 8 devices",
        "train.accumulate=3": r"train.accumulate=3 must divide the 2 images of a device",
        "data.name=digitz": r"digitz",
        "data.validation=5000": r"data.validation=5000",
        "data.normalization=imagenet": r"'imagenet' is for 3 channels; the images have 1",
        "init.weights=nowhere.pth": r"nowhere.pth: there is no such file",
        "train.batch_size=2000000000": r"train.batch_size=2000000000: .* of memory",
        "model.stage_filters=(8, 4, 2)": r"option A cannot narrow 2 channels to 1",
    }
    values = dict(text.split("=") for text in wrong)
    values |= {"train.bn_group": 5, "train.accumulate": 3, "data.validation": 5000, "train.batch_size": 2 * 10**9}
    values |= {"model.stage_filters": (8, 4, 2)}
    del values["init.weights"], wrong["init.weights=nowhere.pth"]  # a plan reads them already
    cases = [Case("plain-8", SMALL), *(Case("residual-8", SMALL | {"train.steps": 2, k: v}) for k, v in values.items())]
    with pytest.raises(UserError) as found:
        execution.execute(plan(cases, asked), asked)
    for message in wrong.values():
        assert re.search(message, str(found.value)), found.value
    assert "plain-8" not in str(found.value)
    assert not (folder / "runs").exists()


def test_what_is_wrong_with_several_runs_is_said_once(folder, asked):
    cases = [Case(f"{unit}-8", SMALL | {"data.name": "digitz"}, unit) for unit in ("plain", "residual")]
    with pytest.raises(UserError, match="^plain, seed 0, residual, seed 0: data.name='digitz'") as found:
        execution.execute(plan(cases, asked), asked)
    assert str(found.value).count("digitz'") == 1


def test_a_run_that_is_refused_after_all_is_noted_and_the_next_one_starts(folder, asked, monkeypatch):
    from resnet_flax.training import loop

    real = loop.run

    def refuse(config, workdir, *tracking):
        if config.model.unit == "plain":
            raise UserError(f"{workdir}: cannot be written: No space left on device")
        return real(config, workdir, *tracking)

    monkeypatch.setattr(loop, "run", refuse)
    refused, fine = execution.execute(plan([Case("plain-8", SMALL), Case("residual-8", SMALL)], asked), asked)
    assert (refused.failure, fine.failure, fine.final["step"]) == ("failed", "", 4)
    assert refused.reason.endswith("No space left on device")
    with pytest.raises(Failed, match=r"1 of 2 runs did not end: plain-8 .*: failed"):
        execution.raise_failures([refused, fine])


@pytest.mark.slow  # 20 s; test_fine_tuning.py starts from weights and goes on without them
def test_runs_from_weights_are_found_and_finished_ones_are_skipped(asked, folder, given, tmp_path, capsys):
    """Their configs hold what belongs to the weights, which a command line does not say."""
    from resnet_flax import model
    from resnet_flax.interchange import files, names
    from resnet_flax.training import loop

    [first] = plan([Case("residual-8", SMALL | {"model.shortcut": "B"})], asked)
    loop.run(first.config, first.workdir)
    weights = tmp_path / "weights.safetensors"
    found = model.from_run(first.workdir)
    tensors = names.to_tensors(found.network, found.preprocessing.image_shape, found.variables, "cifar")
    files.write(weights, tensors, configs.to_json(found.config), found.preprocessing.to_json())
    asked = given(f"--config.init.weights={weights}")
    [run] = plan([Case("residual-8", SMALL)], asked)
    assert run.config.model.shortcut == "B"  # as the weights have it
    [outcome] = execution.execute([run], asked)
    assert (outcome.failure, outcome.final["step"]) == ("", 4)
    before = (run.workdir / "starts.jsonl").read_text()
    [again] = plans.located(plan([Case("residual-8", SMALL)], asked), asked)
    assert again == run
    plans.print_plan([again])
    assert capsys.readouterr().out.endswith(": finished\n")
    assert execution.execute([again], asked)[0].final["step"] == 4
    assert (run.workdir / "starts.jsonl").read_text() == before
