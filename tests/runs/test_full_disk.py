"""A full disk, simulated by a limit on file sizes, gives a message of one line, and nothing is lost."""

import resource
import shutil

import numpy as np
import pytest
from PIL import Image

from resnet_flax import config
from resnet_flax.data import datasets
from resnet_flax.data.cache import cached_array
from resnet_flax.errors import UserError
from resnet_flax.interchange import files
from resnet_flax.runs.checkpoints import Checkpoints
from tests.commands import finish, lines, train

RUN = ("--config.model.width=0.25", "--config.train.log_every=2", "--config.train.eval_every=4",
       "--config.train.checkpoint_every=4", "--config.train.batch_size=16")  # fmt: skip


@pytest.fixture
def no_larger_than():
    """A function that limits the size of files that this process and its later children can write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [1_000, None])
def test_a_full_disk_while_caching(tmp_path, no_larger_than, monkeypatch, caplog, room):
    """The decoded images of 50 kB are used from memory, and no partial file is left."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    image = np.arange(40 * 40 * 3, dtype=np.uint8).reshape(40, 40, 3)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(5):
            Image.fromarray(image).save(tmp_path / "photos" / name / f"{i}.png")
    data = config.load("configs/folder.py", None, {"data.folder": str(tmp_path / "photos"), "data.image_size": 40}).data
    data.resize = 0
    if room:
        no_larger_than(room)
    found = datasets.load(data)
    np.testing.assert_array_equal(found.train.images[0], image)
    array = cached_array("numbers", [tmp_path / "photos" / "cat" / "0.png"], lambda: np.arange(1000))
    np.testing.assert_array_equal(array, np.arange(1000))
    warnings = [r.getMessage() for r in caplog.records if "cannot cache" in r.getMessage()]
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert (len(warnings), len(kept)) == ((2, 0) if room else (0, 7))
    assert all("written" in warning for warning in warnings)


def test_a_full_disk_while_saving(tmp_path, no_larger_than):
    code, output = finish(train(tmp_path / "whole", *RUN, "--config.train.steps=12"))
    assert code == 0, output
    run = tmp_path / "run"
    code, output = finish(train(run, *RUN, "--config.train.steps=4"))
    assert code == 0, output

    no_larger_than(8_000)
    code, output = finish(train(run, *RUN, "--config.train.steps=12"))
    assert code == 2, output
    # TensorStore prints lines of its own before and after, because its writes are still in progress.
    (last,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert last.startswith(f"error: {run}/checkpoints: a checkpoint cannot be written: File too large; ")
    assert last.endswith("the last complete one is of step 4. Free disk space; the same command resumes")

    no_larger_than(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    code, output = finish(train(run, *RUN, "--config.train.steps=12"))
    assert code == 0, output
    assert "resuming at step 4 of 12" in output
    assert lines(run) == lines(tmp_path / "whole")


def test_a_full_disk_while_exporting(tmp_path, no_larger_than):
    no_larger_than(1_000)
    with pytest.raises(UserError, match=r"--output=.*/new\.safetensors: cannot be written: .*File too large") as error:
        files.write(tmp_path / "new.safetensors", {"kernel": np.zeros(1000)}, "{}", "{}")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_an_exported_file_has_the_permissions_of_other_new_files(tmp_path):
    other = tmp_path / "other"
    other.touch()
    files.write(tmp_path / "new.safetensors", {"kernel": np.zeros(10)}, "{}", "{}")
    assert (tmp_path / "new.safetensors").stat().st_mode == other.stat().st_mode


def state_of(size):
    """The items of a state with one array of so many parameters."""
    return {"params": {"kernel": np.zeros(size)}}


def test_a_checkpoint_larger_than_the_free_space_is_not_begun(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state_of(1000))
        checkpoints.wait()
        with pytest.raises(UserError) as refused:
            checkpoints.save(2, state_of(2**18))
        assert "it takes 2.0 MiB, and 1.0 are free; the last complete one is of step 1" in str(refused.value)
        assert checkpoints.steps() == [1]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"]
