"""Tests of streamed batches, which do not depend on threads, workers, hosts or the first step; unreadable images."""

import dataclasses
import multiprocessing
import os
import subprocess
import sys
import time
from contextlib import closing

import numpy as np
import psutil
import pytest
from PIL import Image

from resnet_flax.data import decoding
from resnet_flax.data.device_arrays import StreamedBatches
from resnet_flax.data.photographs import Files, Photographs
from resnet_flax.data.streaming import Pipeline
from resnet_flax.errors import UserError
from resnet_flax.training.devices import data_mesh
from tests.commands import ROOT

COUNT, BATCH = 21, 6
PIPELINE = Pipeline(16, 20, augmentation="scale", scales=(20, 40), threads=2)


@pytest.fixture
def photographs(tmp_path):
    """Photographs of several sizes, whose labels are their numbers."""
    rng = np.random.default_rng(0)
    names = [f"{i}.jpg" for i in range(COUNT)]
    for i, name in enumerate(names):
        pixels = rng.integers(0, 256, (40 + i % 3, 50 - i, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    return Photographs.all_of(Files(tmp_path, names), np.arange(COUNT))


def train(photographs, pipeline=PIPELINE, first=0, last=8, places=None, seed=0):
    """Returns all training batches; closes the iterator, so that no process or thread is left."""
    places = np.arange(BATCH) if places is None else places
    with closing(pipeline.train(photographs, seed, BATCH, places, first, last)) as batches:
        return list(batches)


def assert_same(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(np.asarray(a[key]), b[key])


def labels(batches):
    return np.concatenate([batch["labels"] for batch in batches])


def test_a_batch_holds_images_with_their_labels(photographs):
    batches = train(photographs)
    assert len(batches) == 8
    for batch in batches:
        assert (batch["images"].shape, batch["images"].dtype) == ((BATCH, 16, 16, 3), np.uint8)
        assert (batch["labels"].shape, batch["labels"].dtype) == ((BATCH,), np.int32)
        assert (batch["broken"] == -1).all()


def test_an_evaluation_takes_any_batch_size_on_several_devices(photographs):
    mesh = data_mesh()
    assert COUNT % mesh.size
    supply = StreamedBatches({"test": photographs}, mesh, COUNT, COUNT, PIPELINE, 0, note=None)
    (arrays,) = supply.evaluation_arrays("test")
    counted = np.asarray(arrays["mask"])
    assert counted.size % mesh.size == 0
    assert np.asarray(arrays["labels"])[counted].tolist() == list(range(COUNT))


@pytest.mark.parametrize("threads", [1, 4, 0])
def test_threads_do_not_change_batches(photographs, threads):
    assert_same(train(photographs, dataclasses.replace(PIPELINE, threads=threads)), train(photographs))


@pytest.mark.timeout(120)
def test_workers_do_not_change_batches_and_end_on_close(photographs):
    expected = train(photographs)
    pipeline = dataclasses.replace(PIPELINE, workers=2, threads=1)
    batches = pipeline.train(photographs, 0, BATCH, np.arange(BATCH), 3, 8)
    found = [next(batches) for _ in range(2)]
    workers = multiprocessing.active_children()
    assert len(workers) >= 2
    batches.close()  # before the last batch
    assert_same(found, expected[3:5])
    assert not any(worker.is_alive() for worker in workers)


@pytest.mark.timeout(120)
def test_a_worker_outlives_signals_to_stop_but_not_its_parent(photographs, tmp_path):
    """Ctrl-C and Slurm's SIGTERM also reach workers; a SIGKILL of only the parent leaves no worker."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import multiprocessing, os, sys, signal, time\n"
        "import numpy as np\n"
        "from resnet_flax.data import photograph_sets\n"
        "from resnet_flax.data.streaming import Pipeline\n"
        "if __name__ == '__main__':\n"
        "    photographs = photograph_sets.of_folder(__import__('pathlib').Path(sys.argv[1])).train\n"
        "    batches = Pipeline(16, 20, workers=1, threads=1).train(photographs, 0, 4, np.arange(4), 0, 1000)\n"
        "    next(batches)\n"
        "    (worker,) = multiprocessing.active_children()\n"
        "    for number in (signal.SIGINT, signal.SIGTERM):\n"
        "        os.kill(worker.pid, number)\n"
        "    for _ in range(50):\n"
        "        next(batches)\n"
        "    print(worker.pid, flush=True)\n"
        "    time.sleep(100)\n"
    )
    folder = tmp_path / "photographs"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (40, 30)).save(folder / name / f"{i}.png")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, str(script), str(folder)], stdout=subprocess.PIPE, env=environment)
    worker = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    worker.wait(timeout=30)


@pytest.mark.timeout(120)
def test_a_killed_worker_is_reported_in_one_line(photographs):
    pipeline = dataclasses.replace(PIPELINE, workers=1, threads=1)
    with closing(pipeline.train(photographs, 0, BATCH, np.arange(BATCH), 0, 1000)) as batches:
        next(batches)
        (worker,) = multiprocessing.active_children()
        worker.kill()
        with pytest.raises(UserError, match=r"data\.workers=1: .*exit code -9.*enough memory"):
            list(batches)


def test_hosts_get_their_places_of_the_same_batch(photographs):
    expected = train(photographs)
    for places in (np.arange(3), np.arange(3, 6), np.array([5, 0])):
        part = [{key: values[places] for key, values in batch.items()} for batch in expected]
        assert_same(train(photographs, places=places), part)


def test_batches_can_start_at_any_step(photographs):
    expected = train(photographs)
    for first in (1, 3, 7):
        assert_same(train(photographs, first=first), expected[first:])
    assert train(photographs, first=8) == []


def test_each_epoch_has_each_image_once_in_its_own_order(photographs):
    stream = labels(train(photographs, last=21)).reshape(6, COUNT)
    np.testing.assert_array_equal(np.sort(stream, 1), np.tile(np.arange(COUNT), (6, 1)))
    assert len({tuple(epoch) for epoch in stream}) == 6
    # The second epoch of a seed is not the first epoch of the next seed.
    other = labels(train(photographs, last=21, seed=1)).reshape(6, COUNT)
    assert len({tuple(epoch) for epoch in [*stream, *other]}) == 12


@pytest.mark.parametrize("augmentation", ["crop", "scale", "inception"])
def test_an_image_looks_different_in_each_epoch(photographs, augmentation):
    pipeline = dataclasses.replace(PIPELINE, augmentation=augmentation)
    batches = train(photographs, pipeline, last=28)
    images = np.concatenate([batch["images"] for batch in batches])
    for number in range(COUNT):
        views = {image.tobytes() for image in images[labels(batches) == number]}
        assert len(views) >= 4  # of eight; places and mirroring may happen to be the same
    assert_same(train(photographs, pipeline, last=28), batches)


def test_half_of_the_images_are_mirrored(tmp_path):
    """The photographs are dark on the left."""
    pixels = np.repeat(np.linspace(0, 255, 40, dtype=np.uint8)[None], 40, 0)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    photograph = Photographs.all_of(Files(tmp_path, ["a.png"]), np.zeros(1))
    for flip, least, most in ((True, 65, 115), (False, 0, 0)):
        batches = train(photograph, dataclasses.replace(PIPELINE, flip=flip), last=30)
        images = np.concatenate([batch["images"] for batch in batches]).astype(int)
        mirrored = (images[:, :, 0] > images[:, :, -1]).all((1, 2))
        assert least <= mirrored.sum() <= most  # of 180


def test_an_unreadable_image_stops_the_run_and_is_named(photographs):
    expected = train(photographs)
    number = int(labels(expected[2:3])[4])
    path = photographs.source.folder / f"{number}.jpg"
    path.write_bytes(path.read_bytes()[:300])
    first = next(step for step, batch in enumerate(expected) if number in batch["labels"])
    with closing(PIPELINE.train(photographs, 0, BATCH, np.arange(BATCH), 0, 8)) as batches:
        assert_same([next(batches) for _ in range(first)], expected[:first])
        with pytest.raises(UserError, match=r"cannot be read as an image.*set data\.broken=skip to continue") as error:
            next(batches)
    assert str(error.value).startswith(f"{path}: ")


def test_skipped_images_are_counted_and_replaced(photographs):
    expected = train(photographs)
    for number in (4, 5, 20):
        (photographs.source.folder / f"{number}.jpg").write_text("no image")
    found = train(photographs, dataclasses.replace(PIPELINE, skip_broken=True))
    instead = {4: 6, 5: 6, 20: 0}  # the next readable image; the first follows the last
    for a, b in zip(found, expected, strict=True):
        was = np.isin(b["labels"], list(instead))
        np.testing.assert_array_equal(a["broken"], np.where(was, b["labels"], -1))
        np.testing.assert_array_equal(a["labels"], [instead.get(int(label), label) for label in b["labels"]])
        np.testing.assert_array_equal(a["images"][~was], b["images"][~was])
    assert sum((batch["broken"] >= 0).sum() for batch in found) >= 6  # in each of two epochs


def missing(photographs, count):
    """Returns the photographs after ``count`` files that do not exist."""
    names = [f"gone{i}.jpg" for i in range(count)] + list(photographs.source.names)
    return Photographs.all_of(Files(photographs.source.folder, names), np.arange(len(names)))


def test_a_hundred_unreadable_images_in_a_row_stop_the_run(photographs):
    skipping = dataclasses.replace(PIPELINE, skip_broken=True)
    batches = train(missing(photographs, 99), skipping, last=20)  # an epoch
    assert sum((batch["broken"] >= 0).sum() for batch in batches) == 99
    assert (labels(batches) >= 99).all()
    message = r"gone0\.jpg: there is no such file; the 99 images after it cannot be read either"
    with pytest.raises(UserError, match=message):
        train(missing(photographs, 100), skipping, last=21)


def test_an_image_that_becomes_readable_again_is_reported(photographs):
    """The image could not be read ahead, but can be read when the error is explained."""
    expected = train(photographs)
    path = photographs.source.folder / f"{labels(expected[1:2])[0]}.jpg"
    away = path.rename(path.with_suffix(".away"))
    with closing(PIPELINE.train(photographs, 0, BATCH, np.arange(BATCH), 0, 8)) as batches:
        next(batches)
        time.sleep(0.5)  # the iterator decodes a batch ahead
        away.rename(path)
        with pytest.raises(UserError, match="could not be read at first, but can be read now"):
            next(batches)


@pytest.mark.parametrize("places", [np.arange(4), np.array([1, 3])])
def test_ordered_batches_hold_each_image_once(photographs, places):
    with closing(PIPELINE.ordered_batches(photographs, 4, places)) as iterator:
        batches = list(iterator)
    assert len(batches) == 6
    stream = (4 * np.arange(6)[:, None] + places).ravel()
    counts = np.concatenate([batch["counts"] for batch in batches])
    np.testing.assert_array_equal(counts, stream < COUNT)
    np.testing.assert_array_equal(labels(batches)[counts], stream[counts])
    images = np.concatenate([batch["images"] for batch in batches])
    for image, number in zip(images[counts], stream[counts], strict=True):
        np.testing.assert_array_equal(image, decoding.resize_and_crop(photographs[number], 20, 16, 3, "bilinear"))


def test_unreadable_images_do_not_count_in_ordered_batches(photographs):
    (photographs.source.folder / "5.jpg").write_text("no image")
    with closing(PIPELINE.ordered_batches(photographs, 4, np.arange(4))) as batches:
        next(batches)
        with pytest.raises(UserError, match=r"5\.jpg: not an image.*data\.broken=skip"):
            next(batches)
    with closing(
        dataclasses.replace(PIPELINE, skip_broken=True).ordered_batches(photographs, 4, np.arange(4))
    ) as batches:
        every = list(batches)
    assert np.flatnonzero(~np.concatenate([batch["counts"] for batch in every])).tolist() == [5, 21, 22, 23]
    assert np.concatenate([batch["broken"] for batch in every])[5] == 5


def test_statistics_of_the_training_images(photographs):
    """They equal NumPy's over the same central squares; unreadable images do not count."""
    (photographs.source.folder / "5.jpg").write_text("no image")
    readable = [i for i in range(COUNT) if i != 5]
    squares = np.stack([decoding.resize_and_crop(photographs[i], 20, 20, 3, "bilinear") for i in readable]) / 255
    mean = PIPELINE.normalization("pixel_mean", photographs)
    np.testing.assert_allclose(mean.mean, squares.mean(0), atol=1e-6)
    np.testing.assert_array_equal(mean.std, 1)
    channel = PIPELINE.normalization("channel", photographs)
    np.testing.assert_allclose(channel.mean.ravel(), squares.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(channel.std.ravel(), squares.std((0, 1, 2)), atol=1e-6)
    imagenet = PIPELINE.normalization("imagenet", photographs)
    np.testing.assert_allclose(imagenet.mean.ravel(), [0.485, 0.456, 0.406])
    with pytest.raises(UserError, match="none of the 30 training images can be read"):
        PIPELINE.normalization("channel", missing(photographs, 30).take(np.arange(30)))


def test_grey_photographs_have_one_channel(photographs):
    grey = dataclasses.replace(PIPELINE, channels=1)
    (batch,) = train(photographs, grey, last=1)
    assert batch["images"].shape == (BATCH, 16, 16, 1)
