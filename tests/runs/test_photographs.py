"""Real photographs: trained on from a folder, evaluated in every view, and what is wrong with a folder or a file."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.commands import ROOT, command, lines, start

PHOTOS = ROOT.parent / "shared" / "photos"
TINY = (
    "--config=configs/folder.py:residual-18", "--config.data.image_size=32", "--config.data.resize=36",
    "--config.model.width=0.125", "--config.train.batch_size=8", "--config.train.steps=2",
)  # fmt: skip


def make_folder(folder, classes=("cat", "dog"), count=5):
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(folder / name / f"{i}.jpg")
    return folder


def train(folder, workdir, *arguments):
    return command("train.py", *TINY, f"--config.data.folder={folder}", f"--workdir={workdir}", *arguments)


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs the real photographs")
def test_a_small_network_learns_real_photographs(tmp_path):
    """ImageNet's own images, of 128 to 2,400 pixels and one grey one, at 64: a training error below 10 %."""
    code, output = command(
        "train.py", *TINY, f"--config.data.folder={PHOTOS}", f"--workdir={tmp_path}", "--config.data.image_size=64",
        "--config.data.resize=72", "--config.model.width=0.25", "--config.train.batch_size=32",
        "--config.train.steps=200", "--config.optimizer.learning_rate=0.05",
    )  # fmt: skip
    assert code == 0, output
    last = lines(tmp_path)[-1]
    assert last["train_error"] < 0.1
    assert last["test_error"] < 0.7  # of four classes
    errors = {}
    for view in ("center", "10crop"):
        code, output = command("-m", "resnet_flax.evaluate", f"--workdir={tmp_path}", f"--view={view}")
        assert code == 0, output
        assert "46 photographs (" in output
        errors[view] = float(output.splitlines()[-1].removeprefix("test error ").partition("%")[0]) / 100
    # What training decodes into memory, and what evaluation reads from the files, are the same pixels.
    assert errors["center"] == pytest.approx(last["test_error"], abs=1e-4)
    photo = next((PHOTOS / "val" / "dog").iterdir())
    code, output = command("-m", "resnet_flax.predict", f"--workdir={tmp_path}", "--json", str(photo))
    assert code == 0, output
    (found,) = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert {"bird", "dog", "insect", "reptile"} == {p["class"] for p in found["top"]}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two steps on a folder, and the network exported."""
    place = tmp_path_factory.mktemp("photographs")
    folder = make_folder(place / "pets")
    code, output = train(folder, place / "run")
    assert code == 0, output
    exported = place / "pets.safetensors"
    code, output = command("-m", "resnet_flax.export", f"--workdir={place / 'run'}", f"--output={exported}")
    assert code == 0, output
    return folder, place / "run", exported


def last_line(*arguments):
    code, output = command(*arguments)
    assert code == 0, output
    return output.splitlines()[-1]


def test_the_exported_network_is_the_runs(run):
    """Evaluated without a config, in every view; with BN's statistics anew; and on the training images."""
    _, workdir, exported = run
    for more in (["--view=10crop", "--reestimate_bn"], ["--view=multiscale", "--split=train"]):
        expected = last_line("-m", "resnet_flax.evaluate", f"--workdir={workdir}", *more)
        assert last_line("-m", "resnet_flax.evaluate", f"--weights={exported}", *more) == expected
        assert " of 8)" in expected or " of 2)" in expected


def test_fine_tuning_on_other_classes(run, tmp_path):
    _, _, exported = run
    folder = make_folder(tmp_path / "birds", ("crow", "owl", "tit"))
    code, output = train(folder, tmp_path / "run", f"--config.init.weights={exported}")
    assert code == 2
    assert "fc.weight is (2, 64) and must be (3, 64)" in output
    assert "--reset-head" in output
    more = ["--reset-head", "--config.optimizer.trainable=head"]
    code, output = train(folder, tmp_path / "run", f"--config.init.weights={exported}", *more)
    assert code == 0, output


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: None, "there is no such folder"),
        (lambda f: f.mkdir(), "holds no class folders"),
        (
            lambda f: (make_folder(f / "train"), make_folder(f / "val", ("cat", "cow"))),
            "train has the class dog, val does not; both need the same classes",
        ),
        (
            lambda f: (make_folder(f), (f / "cat" / "0.jpg").write_text("no image")),
            "cat/0.jpg: not an image, or of a kind that Pillow cannot read",
        ),
        (
            lambda f: (make_folder(f), (f / "cat" / "1.jpg").write_bytes((f / "cat" / "1.jpg").read_bytes()[:400])),
            "cat/1.jpg: cannot be read as an image, is it whole?",
        ),
    ],
)
def test_a_folder_that_does_not_fit_is_one_line(break_it, message, tmp_path):
    folder = tmp_path / "photos"
    break_it(folder)
    code, output = train(folder, tmp_path / "run")
    assert code == 2
    assert message in output
    assert "Traceback" not in output


def test_weights_and_classes_that_do_not_fit_are_one_line(run, tmp_path):
    _, _, exported = run
    other = make_folder(tmp_path / "birds", ("crow", "owl"))
    code, output = command(
        "-m", "resnet_flax.evaluate", f"--weights={exported}", "--config=configs/folder.py:residual-18",
        f"--config.data.folder={other}", "--config.model.width=0.125",
    )  # fmt: skip
    assert code == 2
    assert "only the folder has crow, owl; only the network has cat, dog" in output
    harmful = tmp_path / "harmful.pth"
    harmful.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    code, output = command(
        "-m", "resnet_flax.predict", "--config=configs/imagenet.py:residual-18", f"--weights={harmful}",
        str(other / "owl" / "0.jpg"),
    )  # fmt: skip
    assert code == 2
    assert "harmful.pth" in output
    assert "os.system" in output
    assert "Traceback" not in output
    assert not (tmp_path / "ran").exists()
    code, output = command(
        "train.py", "--config=configs/folder.py:residual-34", *TINY[1:], f"--config.data.folder={other}",
        f"--workdir={tmp_path / 'deeper'}", f"--config.init.weights={exported}",
    )  # fmt: skip
    assert code == 2
    assert "does not fit imagenet residual-34: missing: " in output
    assert "the file's stages have 2, 2, 2, 2 units" in output


@pytest.mark.slow
def test_a_run_on_photographs_goes_on_where_it_was_stopped(run, tmp_path):
    """Stopped by SIGTERM, and gone on with: the checkpoint of a run that was never stopped, bit for bit."""
    import signal
    import time

    import jax

    from tests.commands import arrays

    folder, _, _ = run
    arguments = [*TINY, f"--config.data.folder={folder}", "--config.train.steps=40", "--config.train.log_every=1"]
    code, output = command("train.py", *arguments, f"--workdir={tmp_path / 'whole'}")
    assert code == 0, output
    process = start("train.py", *arguments, f"--workdir={tmp_path / 'split'}")
    log = tmp_path / "split" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not log.is_file() or log.read_text().count("\n") < 3):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    code, output = command("train.py", *arguments, f"--workdir={tmp_path / 'split'}")
    assert code == 0, output
    whole, split = (arrays(tmp_path / name, 40) for name in ("whole", "split"))
    jax.tree.map(np.testing.assert_array_equal, whole, split)
