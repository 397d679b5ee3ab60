"""Streams of photographs: kills, workers and hosts do not change a run; unreadable images stop it or are skipped."""

import importlib.util
import json
import random
import re
import shutil
import signal
import time

import numpy as np
import pytest
from PIL import Image

from resnet_flax.data import photograph_sets
from tests.commands import ROOT, assert_same_bits, command, finish, free_port, lines, start
from tests.data import imagenet_files

PHOTOS = ROOT.parent / "shared" / "photos"
STEPS = 60
TINY = (
    "--config.data.image_size=32", "--config.data.resize=36", "--config.data.scales=(36,60)",
    "--config.model.width=0.125", "--config.model.stage_units=(1,1)", "--config.model.stage_filters=(64,128)",
    "--config.train.batch_size=8", "--config.train.bn_group=8", f"--config.train.steps={STEPS}",
    "--config.train.log_every=1",
    "--config.train.eval_every=20", "--config.train.checkpoint_every=5", "--config.schedule.milestones=(40,)",
)  # fmt: skip
FLOAT64 = ("--config.model.dtype=float64", "--config.model.param_dtype=float64")


def train(folder, workdir, *arguments, **keys):
    config = ("--config=configs/imagenet.py:residual-18", *TINY, f"--config.data.folder={folder}")
    return start("train.py", *config, f"--workdir={workdir}", *arguments, **keys)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three classes of eleven JPEGs each, in many sizes."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in ("bird", "cat", "dog"):
        (folder / name).mkdir()
        for i in range(11):
            colours = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
            colours.resize(rng.integers(40, 120, 2).tolist()).save(folder / name / f"{i}.jpg")
    return folder


@pytest.fixture(scope="module")
def uninterrupted(photos, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    code, output = finish(train(photos, workdir))
    assert code == 0, output
    assert [line["step"] for line in lines(workdir)] == list(range(1, STEPS + 1))
    return workdir


def kill_at_random(begin, workdir, moments, steps, kills):
    """Starts and kills the run several times after some random steps, then lets it end; returns the steps at kills."""
    came_to = []
    while True:
        before = last_step(workdir)
        process = begin()
        if len(came_to) == kills:
            code, output = finish(process, timeout=1500)
            assert code == 0, output
            return came_to
        target = before + moments.randint(1, steps // (kills + 2))
        deadline = time.monotonic() + 300
        while last_step(workdir) < target:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        came_to.append(last_step(workdir))


def last_step(workdir):
    """The number of complete lines of metrics, of which there is one per step."""
    path = workdir / "metrics.jsonl"
    return path.read_text().count("\n") if path.is_file() else 0


@pytest.mark.slow  # tests/runs/test_interruption.py kills runs on data in memory, with the same code
def test_a_stream_that_is_killed_at_random_ends_in_the_same_bits(photos, uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    came_to = kill_at_random(lambda: train(photos, workdir), workdir, random.Random(2), STEPS, 3)
    assert 0 < came_to[0] < STEPS
    assert_same_bits(workdir, uninterrupted, STEPS)


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs the real photographs")
def test_resnet_18_on_real_photographs_survives_kills(tmp_path):
    """The complete ResNet-18 with the paper's augmentation: crops of 64 at a scale in [72, 144], and colour."""
    paper = (
        "--config.data.image_size=64", "--config.data.resize=72", "--config.data.scales=(72,144)",
        "--config.train.batch_size=32", "--config.train.steps=20", "--config.train.log_every=1",
        "--config.train.eval_every=10", "--config.train.checkpoint_every=2", "--config.optimizer.learning_rate=0.01",
    )  # fmt: skip

    def begin(workdir):
        config = ("--config=configs/imagenet.py:residual-18", *paper, f"--config.data.folder={PHOTOS}")
        return start("train.py", *config, f"--workdir={workdir}")

    code, output = finish(begin(tmp_path / "whole"), timeout=1500)
    assert code == 0, output
    workdir = tmp_path / "run"
    kill_at_random(lambda: begin(workdir), workdir, random.Random(0), 20, 3)
    assert_same_bits(workdir, tmp_path / "whole", 20)


@pytest.mark.slow
def test_the_number_of_workers_and_threads_does_not_change_the_bits(photos, uninterrupted, tmp_path):
    code, output = finish(train(photos, tmp_path, "--config.data.workers=2", "--config.data.threads=1"))
    assert code == 0, output
    assert_same_bits(tmp_path, uninterrupted, STEPS)


@pytest.mark.slow  # 40 s; test_devices.py has two processes, test_photographs.py two that read photographs
def test_two_hosts_train_like_one(photos, tmp_path):
    """Each host reads its own half of every training batch and of the test images."""
    arguments = ("--config.train.steps=6", "--config.train.eval_every=3", "--config.optimizer.learning_rate=0.01")
    arguments, keys = (*arguments, *FLOAT64), {"JAX_ENABLE_X64": "1"}
    code, output = finish(train(photos, tmp_path / "one", *arguments, environment=keys))
    assert code == 0, output
    join = (f"--coordinator=localhost:{free_port()}", "--processes=2")
    both = [
        train(photos, tmp_path / "two", *arguments, *join, f"--process={i}", environment=keys) for i in range(2)
    ]  # fmt: skip
    results = [finish(process) for process in both]
    assert [code for code, _ in results] == [0, 0], results
    ours, theirs = lines(tmp_path / "two"), lines(tmp_path / "one")
    assert [line["step"] for line in ours] == [1, 2, 3, 4, 5, 6]
    for one, two in zip(theirs, ours, strict=True):
        assert one.keys() == two.keys()
        for key in one:
            np.testing.assert_allclose(two[key], one[key], rtol=1e-10, err_msg=f"step {one['step']}: {key}")


def test_an_unreadable_training_image_stops_the_run_or_is_skipped(photos, tmp_path):
    """The run is saved before it stops, and resumes with data.broken=skip."""
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    broken = sorted((folder / "cat").iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:-400])
    arguments = ("--config.train.steps=12", "--config.train.eval_every=12", "--config.data.normalization=imagenet")
    code, output = finish(train(folder, tmp_path / "run", *arguments))
    assert code == 2, output
    last = output.splitlines()[-1]
    said = re.fullmatch(
        rf"error: {broken}: cannot be read as an image; is the file complete\? \(.+\); set data.broken=skip to "
        r"continue without it \(stopped and saved at step (\d+) of 12\)",
        last,
    )
    assert said, last

    code, output = finish(train(folder, tmp_path / "run", *arguments, "--config.data.broken=skip"))
    assert code == 0, output
    assert f"resuming at step {said[1]} of 12" in output
    assert f"{broken}: cannot be read as an image" in output
    (noted,) = [json.loads(line) for line in (tmp_path / "run" / "broken_images.jsonl").read_text().splitlines()]
    assert (noted["image"], noted["split"]) == (str(broken), "train")


def test_an_unreadable_test_image_stops_the_run_or_is_skipped(photos, tmp_path):
    """The run is saved before it stops. With data.broken=skip it resumes, and can be evaluated."""
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    arguments = ("--config.train.steps=8", "--config.train.eval_every=4", "--config.data.normalization=imagenet")
    broken = next(path for path in sorted((folder / "cat").iterdir()) if is_for_testing(folder, path))
    broken.write_bytes(b"no image")
    run = tmp_path / "run"
    code, output = finish(train(folder, run, *arguments))
    assert code == 2, output
    last = output.splitlines()[-1]
    assert last.startswith(f"error: {broken}: not an image")
    assert last.endswith("(stopped and saved at step 4 of 8, which was not evaluated)")

    code, output = finish(train(folder, run, *arguments, "--config.data.broken=skip"))
    assert code == 0, output
    assert "resuming at step 4 of 8" in output
    assert [line["step"] for line in lines(run)] == [1, 2, 3, 4, 5, 6, 7, 8]
    code, output = finish(train(folder, tmp_path / "whole", *arguments, "--config.data.broken=skip"))
    assert code == 0, output
    losses = [[line["train_loss"] for line in lines(place)] for place in (run, tmp_path / "whole")]
    assert losses[0] == losses[1]  # the resumed steps had the batches of an uninterrupted run
    code, output = command("-m", "resnet_flax.evaluate", f"--workdir={run}", "--reestimate_bn")
    assert code == 0, output
    assert f"{broken}: not an image" in output
    assert re.search(r"test error .*% \(\d of 5\)", output.splitlines()[-1])  # a fifth of 33, less one
    code, output = command("-m", "resnet_flax.evaluate", f"--workdir={run}")
    assert output.splitlines()[-1].endswith(f"loss {lines(run)[-1]['test_loss']:.4f}")

    (folder / "dog" / "new.jpg").write_bytes((folder / "dog" / "0.jpg").read_bytes())
    code, output = finish(train(folder, run, *arguments, "--config.data.broken=skip", "--config.train.steps=12"))
    assert code == 2
    assert "its photographs are not those it was begun on, or come in another order: 27 + 6 (" in output


def is_for_testing(folder, path):
    return str(path) in {str(photo) for photo in photograph_sets.of_folder(folder).test}


def test_hosts_with_different_or_unreadable_photographs_stop(photos, tmp_path):
    """With different photographs, both hosts refuse. If one cannot read its share, it says so and both stop."""
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "dog" / "new.jpg").write_bytes((folder / "dog" / "0.jpg").read_bytes())

    def both(*folders):
        join = (f"--coordinator=localhost:{free_port()}", "--processes=2", "--config.data.normalization=imagenet",
                "--config.train.log_every=20", "--config.train.bn_group=0")  # fmt: skip
        started = [train(f, tmp_path / "run", *join, f"--process={i}") for i, f in enumerate(folders)]
        return [finish(process, timeout=150) for process in started]

    results = both(photos, folder)
    assert [code for code, _ in results] == [2, 2], results
    assert all("the photographs of process 1 differ from those of process 0" in output for _, output in results)

    (folder / "dog" / "new.jpg").unlink()
    for path in sorted((folder / "dog").iterdir())[:3]:
        path.write_bytes(b"no image")
    results = both(folder, folder)
    said = [i for i, (code, output) in enumerate(results) if code == 2 and "not an image" in output]
    assert said, results
    for i, (code, output) in enumerate(results):
        if i not in said:
            assert code in (3, -signal.SIGABRT), output
            assert "another process is lost" in output


@pytest.mark.slow  # tests/data/test_tars.py and test_photograph_sets.py read such files
def test_a_run_trains_on_imagenets_tars(tmp_path):
    """The tar files are read directly, without TensorFlow. The same images in other formats give the same error."""
    assert importlib.util.find_spec("tensorflow") is None
    imagenet_files.write_tars(tmp_path / "tars")
    imagenet_files.write_folders(tmp_path / "folders")
    imagenet_files.prepare_tfds(tmp_path / "tfds")
    config = ("--config=configs/imagenet.py:residual-18", *TINY, "--config.train.steps=40",
              "--config.optimizer.learning_rate=0.02", "--config.schedule.milestones=()")  # fmt: skip
    code, output = command("train.py", *config, f"--config.data.data_dir={tmp_path / 'tars'}",
                           f"--workdir={tmp_path / 'run'}")  # fmt: skip
    assert code == 0, output
    last = lines(tmp_path / "run")[-1]
    assert last["test_error"] == last["train_error"] == 0  # the classes differ in their colours

    found = {}
    for form, what in (("tars", "tar files"), ("folders", "class folders"), ("tfds", "TFDS data set")):
        code, output = command("-m", "resnet_flax.evaluate", f"--workdir={tmp_path / 'run'}", *config,
                               f"--config.data.data_dir={tmp_path / form}")  # fmt: skip
        assert code == 0, output
        assert f"7 photographs ({what} in {tmp_path / form}" in output
        found[form] = output.splitlines()[-1]
    assert found["tars"] == f"test error 0.00% (0 of 7), loss {last['test_loss']:.4f}"
    assert len(set(found.values())) == 1
