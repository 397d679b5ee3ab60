"""Mistakes give one line and exit code 2, divergence gives 4, and ``evaluate`` prints the errors of training."""

import json
import re
import resource

import numpy as np
import pytest

from tests.commands import arrays, command, finish, lines, streams, train

SHORT = (
    "--config.train.steps=20", "--config.train.log_every=5", "--config.train.eval_every=10",
    "--config.train.checkpoint_every=10", "--config.schedule.milestones=(10,15)", "--config.model.width=0.25",
)  # fmt: skip
RUN = (*SHORT, "--config.train.batch_size=20", "--config.data.validation=142")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "run"
    code, output = finish(train(workdir, *RUN))
    assert code == 0, output
    return workdir, output


def assert_refused(arguments, message, **keys):
    """Checks exit code 2, nothing on stdout, and one line on stderr, where jax would also log a compilation."""
    code, out, error = streams(*arguments, environment={"JAX_LOG_COMPILES": "1"}, **keys)
    assert code == 2, error
    assert out == ""
    assert len(error.splitlines()) == 1, error
    assert error.startswith("error: ")
    assert re.search(message, error), error


DIGITS, WORKDIR = "--config=configs/digits.py:residual-8", "--workdir=WORKDIR"
CIFAR = "--config=configs/cifar10.py:residual-20"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        # flags
        ([DIGITS, "--workdr=runs/x"], "unknown flag --workdr; did you mean --workdir"),
        ([DIGITS, WORKDIR, "--quick"], "unknown flag --quick"),
        ([DIGITS, WORKDIR, "--steps=100"], "unknown flag --steps; did you mean --config.train.steps?"),
        ([DIGITS, WORKDIR, "--lr=0.1"], "unknown flag --lr; did you mean --config.optimizer.learning_rate?"),
        ([DIGITS, WORKDIR, "extra"], "argument 'extra' is not a flag"),
        ([DIGITS], "--workdir is missing: Run directory"),
        ([WORKDIR], "--config is missing: FILE:UNIT-DEPTH, such as configs/digits.py:plain-56"),
        ([WORKDIR, "--config.train.steps=9"], "--config.train.steps sets a key of a config; .*: --config=FILE$"),
        ([DIGITS, WORKDIR, "--processes=2"], "--coordinator, --processes and --process belong together"),
        # the file and the name
        (["--config=configs/digit.py:plain-8", WORKDIR], "--config=configs/digit.py: there is no such file"),
        (["--config", "nowhere/digits.py", WORKDIR], "--config=nowhere/digits.py: there is no such file"),
        (["--config=LICENSE", WORKDIR], "LICENSE"),
        (["--config=configs/digits.py:plain", WORKDIR], "'plain' is not UNIT-DEPTH"),
        (["--config=configs/digits.py:resnet20", WORKDIR], "name 'resnet20' is not .*; did you mean residual-20?"),
        (["--config=configs/digits.py:ResNet-56", WORKDIR], "name 'ResNet-56' is not .*; did you mean residual-56?"),
        (["--config=configs/digits.py:plain-eight", WORKDIR], "'plain-eight' is not UNIT-DEPTH"),
        (["--config=configs/from_json.py:nowhere.json", WORKDIR], "nowhere.json: there is no such file"),
        # keys and values
        ([DIGITS, WORKDIR, "--config.optimizer.learning_rat=1"], "'optimizer.learning_rat'; did you mean optimizer"),
        ([DIGITS, WORKDIR, "--config.optimizer.lr=1"], "key 'optimizer.lr'; did you mean optimizer.learning_rate?"),
        ([DIGITS, WORKDIR, "--config.epochs=9"], "'epochs'; did you mean train.steps?.*an epoch is training images / "),
        ([DIGITS, WORKDIR, "--config.train.weight_decay=1"], "'train.weight_decay'; did you mean optimizer.weight_"),
        ([DIGITS, WORKDIR, "--config.model.layers=20"], "'model.layers'; did you mean model.depth?"),
        ([DIGITS, WORKDIR, "--config.trane.steps=1"], "no key 'trane.steps'; did you mean train.steps"),
        ([DIGITS, WORKDIR, "--config.train.steps=many"], "--config.train.steps=many: it must be an int, such as 64000"),
        ([DIGITS, WORKDIR, "--config.train.steps=1.5"], "--config.train.steps=1.5: it must be an int"),
        ([DIGITS, WORKDIR, "--config.optimizer.learning_rate=high"], "learning_rate=high: it must be a float"),
        ([DIGITS, WORKDIR, "--config.optimizer.learning_rate=nan"], "optimizer.learning_rate=nan"),
        ([DIGITS, WORKDIR, "--config.data.flip=perhaps"], "--config.data.flip=perhaps: it must be a bool"),
        ([DIGITS, WORKDIR, "--config.schedule.milestones=(9,5)"], r"schedule.milestones=\(9, 5\) must be increasing"),
        ([DIGITS, WORKDIR, "--config.train.steps=0"], "train.steps=0 must be at least 1"),
        ([DIGITS, WORKDIR, "--config.optimizer.name=adam"], "name='adam' is not known; choose one of sgd, adamw"),
        ([DIGITS, WORKDIR, "--config.optimizer=sgd"], "has no key 'optimizer'; did you mean optimizer.name?"),
        (["--config.train.steps=0", WORKDIR, DIGITS], "train.steps=0 must be at least 1"),  # in any order
        (["--config.train.steps=0", WORKDIR, *DIGITS.split("=")], "train.steps=0 must be at least 1"),
        ([DIGITS, WORKDIR, "--gpu=0"], "unknown flag --gpu; JAX_PLATFORMS=cpu or cuda .* docs/devices.md"),
        # networks
        (["--config=configs/digits.py:residul-8", WORKDIR], "'residul' is not known; choose one of plain, residual"),
        (["--config=configs/digits.py:plain-21", WORKDIR], r"depth=21 is no basic .* 8, 14, 20, .* near 21: 20, 26"),
        (["--config=configs/imagenet.py:residual-51", WORKDIR], r"model.depth=51 .* bottleneck: 50, 101, 152"),
        (["--config=configs/folder.py:residual-20", WORKDIR], "depth=20 is no network of .* model.family=cifar has 6n"),
        ([DIGITS, WORKDIR, "--config.model.depth=14", "--config.model.stage_units=(1,1,1)"], "depth=14 .*set only one"),
        ([DIGITS, WORKDIR, "--config.model.dtype=float64"], "JAX_ENABLE_X64=1"),
        # data
        ([DIGITS, WORKDIR, "--config.data.name=mnist"], "data.name='mnist': looked for a prepared TFDS data set in"),
        ([CIFAR, WORKDIR, "--config.data.data_dir=nowhere"], "data.data_dir=nowhere: there is no such folder"),
        ([CIFAR, WORKDIR, "--config.data.data_dir=tests", "--config.data.download=False"],
         r"looked for a prepared TFDS data set in tests/cifar10, and cifar-10-binary.tar.gz .* set data.download=True"),
        ([DIGITS, WORKDIR, "--config.data.normalization=imagenet"], "needs images with 3 channels, but these have 1"),
        ([DIGITS, WORKDIR, "--config.data.validation=1442"], "validation=1442 must be below the 1442 training images"),
    ],
    ids=str,
)  # fmt: skip
def test_a_mistake_is_one_line(tmp_path, arguments, message):
    arguments = [a.replace("WORKDIR", str(tmp_path / "run")) for a in arguments]
    assert_refused(["train.py", *arguments], message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.train.batch_size=20"], "batch_size=20 is not divisible by the 8 devices; 16 or 24 would be"),
        (["--config.train.bn_group=12"], "train.bn_group=12 does not fit train.batch_size=32 on 8 devices"),
    ],
)
def test_a_batch_that_devices_cannot_share(tmp_path, arguments, message):
    assert_refused(["train.py", DIGITS, f"--workdir={tmp_path}/run", *arguments], message, devices=8)


def test_a_folder_of_another_config(run):
    given = [*RUN, "--config.optimizer.learning_rate=0.2", "--config.train.batch_size=10"]
    message = r"another config.*optimizer.learning_rate: 0.005 there, 0.2 now; train.batch_size: 20 there, 10 now"
    assert_refused(["train.py", DIGITS, f"--workdir={run[0]}", *given], message)


def test_a_folder_that_cannot_be_created_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    assert_refused(["train.py", DIGITS, f"--workdir={tmp_path}/file/run"], "cannot be created: Not a directory")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--step=7"], "--step=7: choose 'latest', 'best', or one of 10, 20"),
        (["--workdir=nowhere"], "--workdir=nowhere: no run is there"),
        (["--split=tset"], "--split=tset: value should be one of <test|validation|train>"),
        (["--config=configs/digits.py:residual-14", *SHORT], "holds another network than --config names: model.depth"),
    ],
    ids=["step", "workdir", "split", "network"],
)
def test_mistakes_of_evaluate(run, arguments, message):
    assert_refused(["-m", "resnet_flax.evaluate", f"--workdir={run[0]}", *arguments], message)


def test_mistakes_of_an_experiment(tmp_path):
    entry = ["-m", "experiments.plain_vs_residual", f"--workdir={tmp_path}", "--dry-run"]
    assert_refused([*entry, "--config=nowhere.py"], "--config=nowhere.py: there is no such file")
    assert_refused([*entry, "--depths=8,9"], "model.depth=9 is no basic network")
    assert_refused([*entry, "--seeds=one"], "--seeds=one must be whole numbers")


def test_divergence(tmp_path):
    """The last finite checkpoint is kept, and the run diverges in the same way when it resumes from it."""
    workdir, rate = tmp_path / "run", "--config.optimizer.learning_rate=1e9"
    every_step = (
        "--config.train.checkpoint_every=1",
        "--config.train.log_every=1",
        "--config.optimizer.weight_decay=1",
    )
    said = []
    for began_at in ("starting at step 0", "resuming at step "):
        code, output = finish(train(workdir, *SHORT, rate, *every_step))
        assert code == 4, output
        assert began_at in output
        assert "Traceback" not in output
        said.append(output.splitlines()[-1])
    assert said[0] == said[1]
    found = re.search(
        r"not finite at step (\d+); the checkpoint of step (\d+) is kept\. A smaller optimizer\.learn", said[0]
    )
    step, kept = map(int, found.groups())
    assert step >= kept > 0
    assert all(np.isfinite(a).all() for name, a in arrays(workdir, kept).items() if "params" in name)
    assert json.loads((workdir / "diverged.json").read_text())["step"] == step
    assert [line["step"] for line in lines(workdir)] == list(range(1, kept + 1))


@pytest.mark.parametrize(("split", "images", "devices"), [("test", 355, 1), ("validation", 142, 8)])
def test_evaluate_says_what_training_said(run, split, images, devices):
    """The held-out images are the run's, even with a plain config. The run's batch size need not fit the devices."""
    workdir, _ = run
    given = ("--config=configs/digits.py:residual-8", "--config.model.width=0.25") if split == "validation" else ()
    code, output = command(
        "-m", "resnet_flax.evaluate", f"--workdir={workdir}", f"--split={split}", *given, devices=devices
    )
    assert code == 0, output
    found = re.fullmatch(rf"{split} error (\S+)% \((\d+) of {images}\), loss (\S+)", output.strip().splitlines()[-1])
    final = lines(workdir)[-1]
    assert int(found[2]) / images == final[f"{split}_error"]
    assert found[1] == f"{100 * final[f'{split}_error']:.2f}"
    assert float(found[3]) == pytest.approx(final[f"{split}_loss"], abs=1.01e-4)


def test_the_best_checkpoint_is_chosen_by_validation(run):
    workdir, _ = run
    code, output = command("-m", "resnet_flax.evaluate", f"--workdir={workdir}", "--step=best", "--split=validation")
    assert code == 0, output
    errors = {line["step"]: line["validation_error"] for line in lines(workdir) if "validation_error" in line}
    assert f"step {min(errors, key=errors.get)} of 20" in output


def test_what_a_run_leaves(run):
    workdir, output = run
    config = json.loads((workdir / "config.json").read_text())
    for key in ("seed", "model", "data", "optimizer", "train"):
        assert key in config
    first, last = lines(workdir, without=())[0], lines(workdir, without=())[-1]
    assert set(first) == {"step", "epoch", "train_loss", "train_error", "learning_rate", "images_per_second", "seconds"}
    assert set(last) - set(first) == {"test_loss", "test_error", "validation_loss", "validation_error"}
    assert list(workdir.glob("events.out.tfevents*"))
    start = json.loads((workdir / "starts.jsonl").read_text())
    assert {"jax", "flax", "commit", "device", "devices", "cores", "step", "parameters"} <= set(start)
    assert output.strip().splitlines()[-1].startswith(f"step 20: training error {last['train_error']:.2%}, test error")


@pytest.mark.parametrize(
    "entry", [["train.py"], ["-m", "resnet_flax.evaluate"], ["-m", "experiments.plain_vs_residual"]], ids=str
)
def test_help_takes_less_than_two_seconds(entry):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code, out, error = streams(*entry, "--help", cold=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (code, error) == (0, "")
    for flag in ("--config:", "--workdir:", "--coordinator:", "--[no]compilation_cache:", "--config.KEY=VALUE"):
        assert flag in out
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2


def test_help_shows_the_values_of_the_config_on_the_command_line():
    """Required flags may be missing, and unknown ones are ignored."""
    given = ("--config.train.steps=50", "--config=configs/folder.py", "--config.data.image_size=32", "--unknown=1")
    code, output = command("train.py", *given, "--help")
    assert code == 0, output
    values = dict(re.findall(r"^  ([a-z_.]+)=(.*?)  ", output, re.M))
    wanted = {
        "data.name": "folder", "data.resize": "37", "train.steps": "50", "optimizer.learning_rate": "0.01",
        "model.depth": "18",
    }  # fmt: skip
    assert {key: values[key] for key in wanted} == wanted
    code, output = command("train.py", "--config=configs/digits.py", "--config.train.step=50", "--help")
    assert (code, output.startswith("error: config has no key 'train.step'; did you mean train.steps")) == (2, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import sys\nsys.exit(0)\n", "line 2: SystemExit: 0"),
        ("def get_config(name=None):\n    return 1 / 0\n", "line 2: ZeroDivisionError: division by zero"),
    ],
)
@pytest.mark.parametrize("entry", [["train.py"], ["-m", "experiments.depth_sweep", "--dry-run"]], ids=" ".join)
def test_a_config_file_that_raises(tmp_path, entry, text, message):
    (tmp_path / "own.py").write_text(text)
    code, output = command(*entry, f"--config={tmp_path / 'own.py'}", f"--workdir={tmp_path / 'run'}")
    assert (code, output) == (2, f"error: --config={tmp_path / 'own.py'}, {message}\n")


def test_plain_vs_residual(tmp_path):
    arguments = (
        "-m", "experiments.plain_vs_residual", "--config=configs/digits.py", "--depths=8", "--seeds=0,1",
        f"--workdir={tmp_path}", *SHORT,
    )  # fmt: skip
    code, output = command(*arguments, "--dry-run")
    assert code == 0, output
    assert output.count("20 steps") == 4
    assert list(tmp_path.iterdir()) == []

    code, output = command(*arguments)
    assert code == 0, output
    table = (tmp_path / "table.md").read_text()
    assert table in output
    assert [row.split(" | ")[0].strip("| ") for row in table.splitlines()[2:]] == ["plain-8", "residual-8"]
    finals = [100 * lines(next(tmp_path.glob(f"runs/plain-8-*seed{s}")))[-1]["test_error"] for s in (0, 1)]
    assert f"{np.mean(finals):.2f} ± {np.std(finals, ddof=1):.2f}" in table
    assert (tmp_path / "curves.png").stat().st_size > 10_000

    code, output = command(*arguments, "--dry-run")
    assert output.count("finished") == 4
