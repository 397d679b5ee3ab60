"""Mistakes end in one line and exit code 2; divergence in 4; evaluate says what train said."""

import json
import re

import pytest

from tests.commands import command, finish, lines, train

SHORT = (
    "--config.train.steps=20", "--config.train.log_every=5", "--config.train.eval_every=10",
    "--config.train.checkpoint_every=10", "--config.schedule.milestones=(10,15)", "--config.model.width=0.25",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "run"
    code, output = finish(train(workdir, *SHORT, "--config.data.validation=142"))
    assert code == 0, output
    return workdir, output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.optimizer.learning_rat=0.1"], "learning_rat"),
        (["--config.model.depth=21"], r"model.depth=21 is no basic network .* near 21: 20, 26"),
        (["--config.model.unit=residul"], "model.unit='residul' is not known; choose one of plain, residual"),
        (["--config.train.steps=many"], "many"),
        (["--config.train.steps=0"], "train.steps=0 must be at least 1"),
        (["--config.optimizer.name=adam"], "optimizer.name='adam' is not known; choose one of sgd, adamw"),
        (["--config.data.name=mnist"], "data.name='mnist': looked for a prepared TFDS data set in"),
        (["--config.model.dtype=float64"], "JAX_ENABLE_X64=1"),
        (["--config.data.normalization=imagenet"], "is for 3 channels; the images have 1"),
        (["--workdr=runs/x"], "unknown flag --workdr; did you mean --workdir"),
        (["extra"], "argument 'extra' is not a flag"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(tmp_path, arguments, message):
    code, output = finish(train(tmp_path / "run", *arguments))
    assert code == 2, output
    assert re.search(message, output)
    assert "Traceback" not in output
    assert len(output.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("configs/digit.py:plain-20", "configs/digit.py"),
        ("configs/digits.py:plain", "'plain' is not UNIT-DEPTH"),
        ("configs/digits.py:plain-twenty", "'plain-twenty' is not UNIT-DEPTH"),
        ("configs/from_json.py:nowhere.json", "nowhere.json: there is no such file"),
        ("README.md", "README.md"),
    ],
)
@pytest.mark.parametrize("entry", [["train.py"], ["-m", "experiments.plain_vs_residual", "--dry-run"]], ids=str)
def test_a_config_that_is_not_there(tmp_path, config, message, entry):
    if "experiments" in str(entry) and ("plain" in config or "json" in config):
        pytest.skip("an experiment names its networks itself")
    code, output = command(*entry, f"--config={config}", f"--workdir={tmp_path / 'run'}")
    assert code == 2, output
    assert message in output
    assert "Traceback" not in output


def test_a_folder_of_another_config_is_refused(run):
    workdir, _ = run
    code, output = finish(
        train(workdir, *SHORT, "--config.data.validation=142", "--config.optimizer.learning_rate=0.2")
    )
    assert code == 2
    assert "optimizer.learning_rate: 0.005 there, 0.2 now" in output


def test_two_processes_cannot_share_a_folder(tmp_path):
    first = train(tmp_path / "run", "--config.train.steps=100000", "--config.schedule.name=constant")
    for line in first.stdout:
        if "ready after" in line:
            break
    code, output = finish(train(tmp_path / "run", "--config.train.steps=100000", "--config.schedule.name=constant"))
    first.kill()
    first.communicate()
    assert code == 2
    assert "another process is running there" in output


def test_divergence(tmp_path):
    code, output = finish(train(tmp_path / "run", "--config.optimizer.learning_rate=1e30", name="plain-8"))
    assert code == 4, output
    assert re.search(r"not finite at step \d+", output)
    assert "A smaller optimizer.learning_rate may help" in output
    assert json.loads((tmp_path / "run" / "diverged.json").read_text())["step"] >= 0


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize(("split", "images"), [("test", 355), ("validation", 142)])
def test_evaluate_says_what_training_said(run, split, images, devices):
    workdir, _ = run
    code, output = command(
        "-m", "resnet_flax.evaluate", "--config=configs/digits.py:residual-8", f"--workdir={workdir}",
        f"--split={split}", *SHORT, "--config.data.validation=142", devices=devices,
    )  # fmt: skip
    assert code == 0, output
    found = re.fullmatch(rf"{split} error (\S+)% \((\d+) of {images}\), loss (\S+)", output.strip().splitlines()[-1])
    final = lines(workdir)[-1]
    assert int(found[2]) / images == pytest.approx(final[f"{split}_error"])
    assert float(found[1]) == pytest.approx(100 * final[f"{split}_error"], abs=0.006)
    assert float(found[3]) == pytest.approx(final[f"{split}_loss"], abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--step=7"], "--step=7: choose 'latest', 'best', or one of 10, 20"),
        (["--workdir=nowhere"], "no run is there"),
        (["--config=configs/digits.py:residual-14", *SHORT], "holds another network than --config names: model.depth"),
    ],
    ids=["step", "workdir", "network"],
)
def test_mistakes_of_evaluate(run, arguments, message):
    code, output = command("-m", "resnet_flax.evaluate", f"--workdir={run[0]}", *arguments)
    assert code == 2
    assert message in output
    assert "Traceback" not in output


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


def test_config_json_runs_again_to_the_same_bits(run, tmp_path):
    workdir, _ = run
    code, output = command(
        "train.py", f"--config=configs/from_json.py:{workdir}/config.json", f"--workdir={tmp_path}/again"
    )
    assert code == 0, output
    assert lines(tmp_path / "again") == lines(workdir)


def test_help():
    code, output = command("train.py", "--help")
    assert code in (0, 1)
    assert "FILE:UNIT-DEPTH" in output


def test_plain_vs_residual(tmp_path):
    arguments = (
        "-m", "experiments.plain_vs_residual", "--config=configs/digits.py", "--depths=8,14", "--seeds=0,1",
        f"--workdir={tmp_path}", *SHORT,
    )  # fmt: skip
    code, output = command(*arguments, "--dry-run")
    assert code == 0, output
    assert output.count("20 steps") == 8
    assert list(tmp_path.iterdir()) == []

    code, output = command(*arguments)
    assert code == 0, output
    table = (tmp_path / "table.md").read_text()
    assert table in output
    assert [row.split(" | ")[0].strip("| ") for row in table.splitlines()[2:]] == [
        "plain-8", "residual-8", "plain-14", "residual-14",
    ]  # fmt: skip
    import numpy as np

    finals = [100 * lines(tmp_path / f"plain-8-seed{s}")[-1]["test_error"] for s in (0, 1)]
    assert f"{np.mean(finals):.2f} ± {np.std(finals, ddof=1):.2f}" in table
    assert (tmp_path / "curves.png").stat().st_size > 10_000

    code, output = command(*arguments, "--dry-run")
    assert output.count("finished") == 8
