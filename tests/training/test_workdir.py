"""A run's folder: one process at a time, one config, finished or not."""

import dataclasses
import json

import pytest
from PIL import Image

from resnet_flax import config, sums
from resnet_flax.errors import UserError
from resnet_flax.training import loop, run_images
from resnet_flax.training import workdir as folders
from resnet_flax.training.metrics import FILE
from resnet_flax.training.parts import prepare
from tests.training.small import small_config


def finished_folder(path, c):
    folders.write_config(path, c)
    (path / FILE).write_text(json.dumps({"step": c.train.steps}) + "\n")
    (path / "checkpoints" / str(c.train.steps)).mkdir(parents=True)
    return path


def resolved(**overrides):
    return config.resolve(small_config(**overrides))


def test_a_folder_in_use_is_refused_and_free_afterwards(tmp_path):
    with folders.locked(tmp_path / "new" / "run"):
        assert (tmp_path / "new" / "run").is_dir()
        with (
            pytest.raises(UserError, match=r"new/run: another process is running there; wait for it"),
            folders.locked(tmp_path / "new" / "run"),
        ):
            pass
    with folders.locked(tmp_path / "new" / "run"):
        pass


def test_an_error_frees_the_folder(tmp_path):
    def fail():
        with folders.locked(tmp_path):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with folders.locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="file/run: cannot be made: Not a directory"),
        folders.locked(tmp_path / "file" / "run"),
    ):
        pass


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({}, None),
        ({"train__steps": 13}, None),
        ({"data__download": False}, None),
        ({"train__steps": 11}, "train.steps: 12 there, 11 now"),
        ({"seed": 1, "model__width": 0.5}, "differ in model.width: 0.25 there, 0.5 now; seed: 0 there, 1 now"),
    ],
    ids=str,
)
def test_a_run_of_another_config_is_refused(tmp_path, overrides, message):
    folders.check_config(tmp_path, resolved())  # an empty folder takes any
    folders.write_config(tmp_path, resolved())
    if message is None:
        folders.check_config(tmp_path, resolved(**overrides))
    else:
        with pytest.raises(UserError, match=message):
            folders.check_config(tmp_path, resolved(**overrides))


@pytest.mark.parametrize(
    ("overrides", "finished"),
    [
        ({}, True),
        ({"data__download": False}, True),  # where data lie changes nothing
        ({"train__steps": 13}, False),
        ({"seed": 1}, False),
    ],
    ids=str,
)
def test_finished_is_this_config_to_its_last_step(tmp_path, overrides, finished):
    finished_folder(tmp_path, resolved())
    assert folders.is_finished(tmp_path, resolved(**overrides)) is finished


@pytest.mark.parametrize("lost", ["config", "metrics", "checkpoint", "last line"])
def test_a_folder_that_lacks_something_is_not_finished(tmp_path, lost):
    finished_folder(tmp_path, resolved())
    if lost == "config":
        sums.remove(tmp_path / folders.CONFIG)
    elif lost == "metrics":
        (tmp_path / FILE).unlink()
    elif lost == "checkpoint":
        (tmp_path / "checkpoints" / "12").rename(tmp_path / "checkpoints" / "8")
    else:
        (tmp_path / FILE).write_text('{"step": 8}\n')
    assert not folders.is_finished(tmp_path, resolved())


def test_what_is_written_is_whole_or_not_there(tmp_path):
    path = tmp_path / "file"
    folders.write_atomically(path, "old")
    with pytest.raises(TypeError):
        folders.write_atomically(path, None)
    assert path.read_text() == "old"
    folders.write_atomically(path, "new")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_each_start_adds_a_line_that_says_on_what(tmp_path):
    assert folders.record_start(tmp_path, 0, 269_722, 10) == []
    assert folders.record_start(tmp_path, 500, 269_722, 10) == []
    first, second = (json.loads(text) for text in (tmp_path / folders.STARTS).read_text().splitlines())
    assert (first["step"], second["step"], second["parameters"], second["classes"]) == (0, 500, 269_722, 10)
    assert first["devices"] == 8
    versions = {"python", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"}
    assert (
        versions | {"matmul_precision", "commit", "device", "processes", "cores", "processor", "convolution_chunk"}
        <= first.keys()
    )


def test_a_run_that_goes_on_elsewhere_says_so(tmp_path, monkeypatch):
    here = folders.environment()
    monkeypatch.setattr(folders, "environment", lambda: here | {"jax": "0.0.1", "python": "3.0", "devices": 1})
    folders.record_start(tmp_path, 0, 269_722, 10)
    monkeypatch.undo()
    assert folders.record_start(tmp_path, 500, 269_722, 10) == [f"jax 0.0.1, now {here['jax']}", "devices 1, now 8"]
    assert folders.record_start(tmp_path, 600, 269_722, 10) == []
    monkeypatch.setattr(folders, "environment", lambda: here | {"jax": "0.0.1"})
    assert folders.record_start(tmp_path, 0, 269_722, 10) == []  # anew: nothing is gone on with


def photos(folder, classes, values=(0, 250)):
    for name, value in zip(classes, values, strict=True):
        (folder / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (8, 8), (value, value, i)).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture
def of_folder(tmp_path):
    """A run's folder as its start leaves it, on photographs of cats and dogs; and a config of the same for others."""

    def config_of(name, normalization):
        place = {"data__folder": str(tmp_path / name), "data__image_size": 8, "data__normalization": normalization}
        return resolved(**place)

    def begun(normalization):
        photos(tmp_path / "pets", ("cat", "dog"))
        c = config_of("pets", normalization)
        (tmp_path / "run").mkdir()
        folders.write_config(tmp_path / "run", c)
        run_images.write_preprocessing(tmp_path / "run", prepare(c).preprocessing)
        return tmp_path / "run"

    return config_of, begun


def test_a_run_does_not_go_on_with_other_classes(tmp_path, of_folder):
    """As many as before, or more of them: refused, and the run's files stay as they were."""
    config_of, begun = of_folder
    workdir = begun("imagenet")
    before = {p.name: p.read_bytes() for p in workdir.iterdir()}
    photos(tmp_path / "two", ("car", "dog"))
    photos(tmp_path / "three", ("cat", "cow", "dog"), (0, 90, 250))
    for name, now in (("two", "car, dog"), ("three", "cat, cow, dog")):
        with pytest.raises(UserError, match=rf"/run holds a run on other .* in classes there: cat, dog; now: {now}$"):
            loop.run(config_of(name, "imagenet"), workdir)
    assert {p.name: p.read_bytes() for p in workdir.iterdir() if p.name != ".lock"} == before


def test_images_that_moved_are_the_same_and_changed_ones_are_not(tmp_path, of_folder):
    config_of, begun = of_folder
    workdir = begun("channel")
    (tmp_path / "pets").rename(tmp_path / "moved")
    there = prepare(config_of("moved", "channel")).preprocessing
    run_images.check_preprocessing(workdir, there)
    photos(tmp_path / "brighter", ("cat", "dog"), (80, 250))
    brighter = prepare(config_of("brighter", "channel")).preprocessing
    with pytest.raises(UserError, match=r"differ in the mean of the training images; the std of the training images$"):
        run_images.check_preprocessing(workdir, brighter)
    with pytest.raises(UserError, match=r"image_size there: 8, now: 7$"):
        run_images.check_preprocessing(workdir, dataclasses.replace(there, image_size=7))
    written = (workdir / run_images.PREPROCESSING).stat().st_mtime_ns
    run_images.write_preprocessing(workdir, there)
    assert (workdir / run_images.PREPROCESSING).stat().st_mtime_ns == written
    (workdir / run_images.PREPROCESSING).write_bytes(b"\xff")  # damaged
    with pytest.raises(UserError, match=r"preprocessing.json: is not as the run wrote it .* delete .*/sums.json"):
        run_images.check_preprocessing(workdir, there)
    (workdir / sums.FILE).unlink()  # of an earlier version: written anew
    run_images.check_preprocessing(workdir, there)
    run_images.write_preprocessing(workdir, there)
    run_images.check_preprocessing(workdir, there)


def test_a_damaged_config_is_named(tmp_path):
    for content in (b"{", b"\xff", b"[]"):
        (tmp_path / folders.CONFIG).write_bytes(content)
        with pytest.raises(UserError, match=rf"^{tmp_path / 'config.json'}: "):
            folders.read_config(tmp_path)


def test_a_cosine_follows_the_steps(tmp_path):
    folders.write_config(tmp_path, resolved(schedule__name="cosine"))
    with pytest.raises(UserError, match=r"decay_steps: 12 there, 20 now.* cosine .* set schedule.decay_steps=12$"):
        folders.check_config(tmp_path, resolved(schedule__name="cosine", train__steps=20))
    folders.check_config(tmp_path, resolved(schedule__name="cosine", train__steps=20, schedule__decay_steps=12))


def test_milestones_that_follow_the_steps(tmp_path):
    given = {"schedule.name": "piecewise", "data.folder": "photos"}
    folders.write_config(tmp_path, config.resolve(config.load("configs/folder.py", None, given)))
    given["train.steps"] = 4000
    with pytest.raises(UserError, match=r"\(2000, 3000\) now.*, set schedule.milestones=\(1000, 1500\)$"):
        folders.check_config(tmp_path, config.resolve(config.load("configs/folder.py", None, given)))
    given["schedule.milestones"] = (1000, 1500)
    folders.check_config(tmp_path, config.resolve(config.load("configs/folder.py", None, given)))
