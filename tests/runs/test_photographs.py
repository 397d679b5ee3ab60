"""Photographs in folders: training, evaluation in every view, and messages about a bad folder or file."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from resnet_flax import api, model
from resnet_flax.errors import UserError
from resnet_flax.evaluation_config import config_of_file, config_of_run
from resnet_flax.evaluation_set import Trained, load_evaluation_set
from resnet_flax.interchange import files
from resnet_flax.runs import checksums
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.file_names import PHOTOGRAPHS
from tests.commands import ROOT, command, finish, free_port, lines, start, streams
from tests.runs import reference_views

PHOTOS = ROOT.parent / "shared" / "photos"
SHORT = ("--config.train.batch_size=8", "--config.train.steps=2")
# Only two bottlenecks, because these tests mostly compile. Strides as in torchvision's weights.
NETWORK = ("--config=configs/folder.py:residual-50", "--config.model.stage_units=(1,1)")
TINY = (
    *NETWORK, *SHORT, "--config.data.image_size=32", "--config.data.resize=36", "--config.model.width=0.125",
    "--config.model.bottleneck_stride=3x3", "--config.model.bn_epsilon=2e-5",
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
    """ImageNet's images, of 128 to 2,400 pixels and one of them grey, at 64 pixels: a training error below 10%."""
    code, output = command(
        "train.py", "--config=configs/folder.py:residual-18", f"--config.data.folder={PHOTOS}", f"--workdir={tmp_path}",
        "--config.data.image_size=64", "--config.data.resize=72", "--config.model.width=0.25",
        "--config.train.batch_size=32", "--config.train.steps=200", "--config.optimizer.learning_rate=0.05",
    )  # fmt: skip
    assert code == 0, output
    last = lines(tmp_path)[-1]
    assert last["train_error"] < 0.1
    assert last["test_error"] < 0.64  # guessing among four classes has an error of 0.75 ± 0.06
    net, files = model.from_run(tmp_path), sorted((PHOTOS / "val").glob("*/*"))
    crops = [reference_views.crops(file, 72, 64) for file in files]
    for view in ("center", "10crop"):
        code, output = command("-m", "resnet_flax.evaluate", f"--workdir={tmp_path}", f"--view={view}")
        assert code == 0, output
        assert "46 photographs (" in output
        answers = [net.preprocessing.classes[reference_views.probabilities(net, c[view]).argmax()] for c in crops]
        wrong = sum(answer != file.parent.name for answer, file in zip(answers, files, strict=True))
        assert output.splitlines()[-1].startswith(f"test error {wrong / 46:.2%} ({wrong} of 46)")
        # Training decodes into memory and evaluation reads the files, but the pixels are the same.
        assert view == "10crop" or wrong / 46 == pytest.approx(last["test_error"], abs=1e-6)
    photo = next((PHOTOS / "val" / "dog").iterdir())
    code, output = command("-m", "resnet_flax.predict", f"--workdir={tmp_path}", "--json", str(photo))
    assert code == 0, output
    (found,) = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert {"bird", "dog", "insect", "reptile"} == {p["class"] for p in found["top"]}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps on a folder, and its export."""
    place = tmp_path_factory.mktemp("photographs")
    folder = make_folder(place / "pets")
    code, output = train(folder, place / "run")
    assert code == 0, output
    assert "/run: 2 classes (cat, dog); 8 + 2 images" in output
    exported = place / "pets.safetensors"
    code, output, error = streams("-m", "resnet_flax.export", f"--workdir={place / 'run'}", f"--output={exported}")
    assert code == 0, error
    assert "tensors of residual-8, step 2" in output
    assert "gives other logits: model.bn_epsilon=2e-05, and torchvision's network has 1e-05" in error
    return folder, place / "run", exported


def evaluated(*arguments):
    code, output = command("-m", "resnet_flax.evaluate", *arguments)
    assert code == 0, output
    return output.splitlines()[-1]


def test_an_exported_network_evaluates_like_its_run_on_two_processes(run, tmp_path):
    """The file needs no config. The run's state is on the devices of both processes, and only one process prints.

    The evaluations re-estimate BN's statistics and use the training images.
    """
    _, workdir, exported = run
    again = tmp_path / "again.safetensors"
    evaluations = [("evaluate", f"--view={view}", "--reestimate_bn", "--split=train") for view in ("10crop", "center")]
    for arguments in [*evaluations, ("export", f"--output={again}")]:
        if arguments[0] == "evaluate":
            expected = evaluated(f"--weights={exported}", *arguments[1:])
            assert " of 8)" in expected
        join = (f"--workdir={workdir}", f"--coordinator=localhost:{free_port()}", "--processes=2")
        processes = [start("-m", f"resnet_flax.{arguments[0]}", *arguments[1:], *join, f"--process={i}")
                     for i in range(2)]  # fmt: skip
        results = [finish(p) for p in processes]
        assert [code for code, _ in results] == [0, 0], results
        assert "step 2" in results[0][1]
        assert "step 2" not in results[1][1]
        assert arguments[0] == "export" or results[0][1].splitlines()[-1] == expected
    ours, theirs = load_file(again), load_file(exported)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_moved_images_are_evaluated_with_the_network_of_the_run(run, tmp_path):
    """The run's strides, epsilon and width are kept, though the config file has others, unless the user sets them."""
    folder, workdir, exported = run
    shutil.copytree(folder, tmp_path / "elsewhere")
    there = (*NETWORK, f"--config.data.folder={tmp_path / 'elsewhere'}")
    expected = evaluated(f"--workdir={workdir}")
    assert evaluated(f"--workdir={workdir}", *there) == expected
    assert evaluated(f"--weights={exported}", *there) == expected
    code, output = command(
        "-m", "resnet_flax.evaluate", f"--workdir={workdir}", *there, "--config.model.bottleneck_stride=first"
    )
    assert code == 2
    assert "another network than --config names: model.bottleneck_stride: '3x3' there, 'first' now" in output

    shutil.copytree(workdir, tmp_path / "run")
    config = tmp_path / "run" / "config.json"
    config.write_text(config.read_text().replace(str(folder), str(tmp_path / "gone")))
    (tmp_path / "run" / checksums.FILE).unlink()  # the file is edited on purpose
    code, output = command("-m", "resnet_flax.evaluate", f"--workdir={tmp_path / 'run'}")
    assert code == 2
    assert f"data.folder={tmp_path / 'gone'}, the image folder of the training run: there is no such folder" in output
    assert "--config=FILE:residual-8 --config.model.stage_units=(1, 1) --config.data.folder=FOLDER" in output


def test_a_changed_folder_is_not_evaluated_as_the_fifth_that_was_set_aside(run, tmp_path, capsys):
    """Another photograph moves that fifth, so that images of the training would count as test images."""
    folder, workdir, _ = run
    shutil.copytree(folder, tmp_path / "pets")
    shutil.copytree(workdir, tmp_path / "run")
    config = tmp_path / "run" / "config.json"
    config.write_text(config.read_text().replace(str(folder), str(tmp_path / "pets")))
    (tmp_path / "run" / checksums.FILE).unlink()  # the file is edited on purpose
    directory = RunDirectory(tmp_path / "run")

    def load(split=None, other=None):
        given = directory.existing_config() if other else None
        if other:
            given.data.folder = str(other)
        chosen = load_evaluation_set(config_of_run(directory.path, given), split, trained=Trained.of_run(directory))
        return {name: len(images) for name, images in chosen.splits.items()}, capsys.readouterr().err

    assert load() == ({"test": 2}, "")
    shutil.copy(tmp_path / "pets" / "cat" / "0.jpg", tmp_path / "pets" / "cat" / "new.jpg")
    code, output = command("-m", "resnet_flax.evaluate", f"--workdir={tmp_path / 'run'}")
    assert code == 2
    last = output.splitlines()[-1]
    assert last.startswith(f"error: --workdir={tmp_path / 'run'}: its photographs are not those it was begun on")
    assert f": 8 + 2 ({folder}) then, 9 + 2 (class folders in {tmp_path / 'pets'}) now; so --split=test is no" in last
    with pytest.raises(UserError, match="so --split=train is no longer what was set aside"):
        api.open_run(directory.path).evaluate("train")

    assert load("all") == ({"train": 9, "test": 2}, "")
    (tmp_path / "link").symlink_to(tmp_path / "pets")
    with pytest.raises(UserError, match="so --split=test is no longer what was set aside"):
        load(other=tmp_path / "link")  # the same folder
    images, remark = load(other=make_folder(tmp_path / "other", count=10))
    assert images == {"test": 4}
    assert "its photographs were others: 8 + 2" in remark
    for split in ("train", "val"):
        make_folder(tmp_path / "split" / split)
    assert load(other=tmp_path / "split") == ({"test": 10}, "")  # the folder's own test images
    (tmp_path / "run" / PHOTOGRAPHS).unlink()  # as in a run of an earlier version
    images, remark = load()
    assert images == {"test": 2}
    assert "its photographs are not known; if the class folders in" in remark


def test_an_exported_network_knows_the_photographs_of_its_training(run, tmp_path, capsys):
    folder, workdir, exported = run
    file = files.read(exported)
    assert json.loads(file.photographs) == RunDirectory(workdir).photographs()
    shutil.copytree(folder, tmp_path / "pets")
    file = dataclasses.replace(file, config=file.config.replace(str(folder), str(tmp_path / "pets")))
    assert len(load_evaluation_set(config_of_file(file), trained=Trained.of_file(file)).splits["test"]) == 2
    shutil.copy(tmp_path / "pets" / "cat" / "0.jpg", tmp_path / "pets" / "cat" / "new.jpg")
    said = rf"^{exported}: its run's photographs are not those it was begun on, .*: 8 \+ 2 .* then, 9 \+ 2 "
    with pytest.raises(UserError, match=said):
        load_evaluation_set(config_of_file(file), trained=Trained.of_file(file))
    assert capsys.readouterr().err == ""
    earlier = dataclasses.replace(file, photographs=None)
    load_evaluation_set(config_of_file(earlier), trained=Trained.of_file(earlier))
    assert f"{exported}: its run's photographs are not known; if the class" in capsys.readouterr().err
    damaged = dataclasses.replace(file, photographs='{"train": 8}')
    with pytest.raises(UserError, match="pets.safetensors: the description of its images: fingerprint is missing"):
        load_evaluation_set(config_of_file(damaged), trained=Trained.of_file(damaged))


def test_no_refused_key_is_recommended(run, tmp_path):
    folder, workdir, _ = run
    shutil.copytree(folder, tmp_path / "pets")
    for file in (tmp_path / "pets").rglob("*.jpg"):
        file.write_bytes(file.read_bytes()[:200])
    code, output = command(
        "-m", "resnet_flax.evaluate", f"--workdir={workdir}", *NETWORK, f"--config.data.folder={tmp_path / 'pets'}"
    )
    assert code == 2
    assert output.splitlines()[-1].startswith(f"error: {tmp_path / 'pets' / 'cat'}/")
    assert "data.broken" not in output


def test_fine_tuning_on_other_classes_resets_the_head(run, tmp_path):
    _, _, exported = run
    folder = make_folder(tmp_path / "birds", ("crow", "owl", "tit"))
    code, output = train(folder, tmp_path / "run", f"--config.init.weights={exported}")
    assert code == 2
    assert "fc.weight is (2, 64) and must be (3, 64)" in output
    assert "--reset-head" in output
    # The same with a backbone, a file without the last layer.
    backbone = tmp_path / "backbone.safetensors"
    save_file({k: v for k, v in load_file(exported).items() if not k.startswith("fc.")}, backbone)
    more = ["--reset-head", "--config.optimizer.trainable=head"]
    code, output = train(folder, tmp_path / "run", f"--config.init.weights={backbone}", *more)
    assert code == 0, output
    code, output = command("-m", "resnet_flax.predict", *TINY, f"--weights={backbone}", str(folder / "owl"))
    assert code == 2
    assert "the file holds a network without its last layer, which has no classes; train that layer: train.py" in output


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: None, "there is no such folder"),
        (lambda f: f.mkdir(), "holds no class folders"),
        (
            lambda f: (make_folder(f / "train"), make_folder(f / "val", ("cat", "cow"))),
            "train has the class dog, but val does not; both need the same classes",
        ),
        (
            lambda f: (make_folder(f), (f / "cat" / "0.jpg").write_text("no image")),
            "cat/0.jpg: not an image, or of a format that Pillow cannot read",
        ),
        (
            lambda f: (make_folder(f), (f / "cat" / "1.jpg").write_bytes((f / "cat" / "1.jpg").read_bytes()[:400])),
            "names every such file), or skip such files with data.pipeline=stream and data.broken=skip",
        ),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_in_one_line(break_it, message, tmp_path):
    folder = tmp_path / "photos"
    break_it(folder)
    code, output = train(folder, tmp_path / "run")
    assert code == 2
    assert message in output
    assert "Traceback" not in output


def test_weights_and_classes_that_do_not_fit_are_refused_in_one_line(run, tmp_path):
    _, _, exported = run
    other = make_folder(tmp_path / "birds", ("crow", "owl"))
    code, output = command(
        "-m", "resnet_flax.evaluate", f"--weights={exported}", *NETWORK, f"--config.data.folder={other}"
    )
    assert code == 2
    assert "only the data have crow, owl; only the network has cat, dog" in output
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
        "train.py", NETWORK[0], "--config.model.stage_units=(2,1)", *TINY[2:], f"--config.data.folder={other}",
        f"--workdir={tmp_path / 'deeper'}", f"--config.init.weights={exported}",
    )  # fmt: skip
    assert code == 2
    assert "does not fit imagenet residual-11: missing: " in output
    assert "the file's stages have 1, 1 units" in output


@pytest.mark.slow
def test_a_stopped_run_on_photographs_resumes_bit_for_bit(run, tmp_path):
    """A run that SIGTERM stopped resumes to the checkpoint of an uninterrupted run."""
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
