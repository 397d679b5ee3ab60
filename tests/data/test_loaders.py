"""Tests of data sets by name: the digits, a prepared TFDS data set made here, the cache, and missing data sets."""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet_flax import config
from resnet_flax.data import cache, datasets, loaders
from resnet_flax.errors import UserError
from tests.commands import streams

CIFAR10 = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser() / "cifar10"


def data_config(name, folder="", **keys):
    return config.base().data.to_dict() | {"name": name, "data_dir": str(folder), "download": False} | keys


def test_digits_equal_scikit_learns():
    from sklearn.datasets import load_digits

    data = datasets.load(data_config("digits"))
    assert (len(data.train), len(data.test), len(data.validation)) == (1442, 355, 0)
    assert data.train.images.shape == (1442, 8, 8, 1)
    assert data.train.images.dtype == np.uint8
    assert data.classes == tuple("0123456789")
    together = np.concatenate([data.train.images, data.test.images])[..., 0] / 255 * 16
    theirs = load_digits().images
    np.testing.assert_allclose(np.sort(together.sum((1, 2))), np.sort(theirs.sum((1, 2))), atol=0.5)
    # Each class is split in the same way.
    label_of = dict(zip(map(bytes, np.rint(theirs * (255 / 16)).astype(np.uint8)), load_digits().target, strict=True))
    for split in (data.train, data.test):
        assert [label_of[bytes(image)] for image in split.images] == split.labels.tolist()
    per_class = np.bincount(data.test.labels) / np.bincount(load_digits().target)
    assert (np.abs(per_class - 0.2) < 0.01).all()


def test_a_subset_is_the_same_each_time_and_part_of_larger_ones():
    whole = datasets.load(data_config("digits"))
    small, large = (datasets.load(data_config("digits", subset=n)) for n in (100, 400))
    again = datasets.load(data_config("digits", subset=100))
    np.testing.assert_array_equal(small.train.images, again.train.images)
    assert (len(small.train), len(large.train), len(small.test)) == (100, 400, len(whole.test))
    outer, inner = ({image.tobytes() for image in data.train.images} for data in (large, small))
    assert inner < outer < {image.tobytes() for image in whole.train.images}
    with pytest.raises(UserError, match=r"data.subset=1443 must be at most the 1442 training images of digits"):
        datasets.load(data_config("digits", subset=1443))
    with_validation = datasets.load(data_config("digits", subset=1000, validation=442))
    kept, aside = (
        {image.tobytes() for image in data.images} for data in (with_validation.train, with_validation.validation)
    )
    assert not kept & aside


def test_the_validation_split_is_the_same_each_time():
    whole, split = datasets.load(data_config("digits")), datasets.load(data_config("digits", validation=142))
    again = datasets.load(data_config("digits", validation=142))
    assert (len(split.train), len(split.validation)) == (1300, 142)
    np.testing.assert_array_equal(split.validation.images, again.validation.images)
    np.testing.assert_array_equal(split.test.images, whole.test.images)
    rows = {x.tobytes() for x in split.train.images} | {x.tobytes() for x in split.validation.images}
    assert rows == {x.tobytes() for x in whole.train.images}
    with pytest.raises(UserError, match="data.validation=1442 must be below the 1442 training images"):
        datasets.load(data_config("digits", validation=1442))


def test_images_are_resized():
    data = datasets.load(data_config("digits", image_size=4))
    whole = datasets.load(data_config("digits"))
    assert data.test.images.shape == (355, 4, 4, 1)
    averaged = whole.test.images.reshape(355, 4, 2, 4, 2, 1).mean((2, 4))
    assert np.abs(data.test.images - averaged).max() <= 1  # rounded after each of two passes


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with a TFDS data set of encoded images, prepared without TensorFlow as TFDS documents it."""
    import contextlib

    with contextlib.redirect_stdout(io.StringIO()):
        import tensorflow_datasets as tfds

        class Blocks(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                features = {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.ClassLabel(names=["dark", "light"]),
                }
                return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

            def _split_generators(self, dl_manager):
                return {"train": self._generate_examples(12, 8), "test": self._generate_examples(5, 6)}

            def _generate_examples(self, count, side):
                for i in range(count):
                    pixels = np.full((side, side, 3), 10 * i, np.uint8)
                    file = io.BytesIO()
                    Image.fromarray(pixels).save(file, "PNG")
                    file.seek(0)
                    yield i, {"image": file, "label": int(i > 5)}

        folder = tmp_path_factory.mktemp("tfds")
        Blocks(data_dir=str(folder), file_format="array_record").download_and_prepare()
    return folder


def test_any_prepared_data_set_loads(prepared, fresh_cache):
    data = datasets.load(data_config("blocks", prepared, image_size=6))
    assert data.classes == ("dark", "light")
    assert data.train.images.shape == (12, 6, 6, 3)
    order = np.argsort(data.train.images[:, 0, 0, 0])
    np.testing.assert_array_equal(data.train.images[order, 0, 0, 0], 10 * np.arange(12))
    np.testing.assert_array_equal(data.train.labels[order], np.arange(12) > 5)
    # The folder of the version itself may be named too.
    again = datasets.load(data_config("blocks", prepared / "blocks" / "1.0.0", image_size=6))
    np.testing.assert_array_equal(again.train.images, data.train.images)


def test_digits_are_read_without_scikit_learn_the_second_time(fresh_cache):
    program = (
        "import sys, tests.data.test_loaders as t; d = t.datasets.load(t.data_config('digits', image_size=4));"
        "print(d.train.images.astype(int).sum(), d.test.labels.sum(), *d.train.images.shape, 'sklearn' in sys.modules)"
    )
    (_, first, _), (_, second, _) = (streams("-c", program) for _ in range(2))
    assert first.split()[-1] == "True"
    assert second.split()[-1] == "False"
    assert second.split()[:-1] == first.split()[:-1]
    assert second.split()[2:-1] == ["1442", "4", "4", "1"]


def test_a_second_load_decodes_nothing(prepared, fresh_cache, monkeypatch):
    first = datasets.load(data_config("blocks", prepared, image_size=6))
    monkeypatch.setattr(loaders, "_read_prepared", None)  # a call would fail
    second = datasets.load(data_config("blocks", prepared, image_size=6))
    for split in ("train", "test"):
        np.testing.assert_array_equal(getattr(first, split).images, getattr(second, split).images)
        np.testing.assert_array_equal(getattr(first, split).labels, getattr(second, split).labels)
    assert second.classes == first.classes


def test_a_flipped_bit_in_the_cache_is_logged_and_repaired(prepared, fresh_cache, caplog):
    right = datasets.load(data_config("blocks", prepared, image_size=6))
    [entry] = fresh_cache.iterdir()
    for name in sorted(path.name for path in entry.iterdir()):
        content = (entry / name).read_bytes()
        for place in (len(content) // 2, len(content) - 1):
            changed = bytearray(content)
            changed[place] ^= 1
            (entry / name).write_bytes(changed)
            caplog.clear()
            found = datasets.load(data_config("blocks", prepared, image_size=6))
            np.testing.assert_array_equal(found.train.images, right.train.images)
            np.testing.assert_array_equal(found.test.labels, right.test.labels)
            assert found.classes == right.classes
            assert "is damaged" in caplog.text
            assert (entry / name).read_bytes() == content  # it was written again
    caplog.clear()
    datasets.load(data_config("blocks", prepared, image_size=6))
    assert caplog.text == ""


def test_an_entry_of_an_earlier_format_is_not_read(prepared, fresh_cache, monkeypatch):
    """An entry of the old format has no checksums, and its images may have been decoded differently."""
    with monkeypatch.context() as patch:
        patch.setattr(cache, "_FORMAT", 1)
        datasets.load(data_config("blocks", prepared, image_size=6))
    [entry] = fresh_cache.iterdir()
    (entry / "about.json").unlink()
    (entry / "classes.json").write_text('["dark", "light"]')
    np.save(entry / "train_labels.npy", np.full(12, 7, np.int32))
    assert set(datasets.load(data_config("blocks", prepared, image_size=6)).train.labels) == {0, 1}


def test_a_flipped_bit_in_a_cached_array_is_logged_and_repaired(tmp_path, fresh_cache, caplog):
    (tmp_path / "source").write_text("")
    array = np.arange(1000)
    for _ in range(2):
        found = cache.cached_array("numbers", [tmp_path / "source"], lambda: array)
        np.testing.assert_array_equal(found, array)
        [path] = (fresh_cache.parent / "arrays").glob("*/array.npy")
        content = bytearray(path.read_bytes())
        content[500] ^= 4
        path.write_bytes(content)
    assert "is damaged" in caplog.text


@pytest.mark.parametrize("name", ["evil_features.Image", "tensorflow_datasets.core.features.x-y.Z", "os.path"])
def test_a_data_set_that_names_a_foreign_module_is_refused(prepared, tmp_path, fresh_cache, monkeypatch, name):
    """TFDS would import any module that features.json names."""
    shutil.copytree(prepared, tmp_path / "tfds")
    (tmp_path / "evil_features.py").write_text(f"open({str(tmp_path / 'was run')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "tfds" / "blocks" / "1.0.0" / "features.json"
    path.write_text(path.read_text().replace("tensorflow_datasets.core.features.image_feature.Image", name))
    with pytest.raises(UserError, match=r"features.json: names the class .* which is not a feature of TFDS"):
        datasets.load(data_config("blocks", tmp_path / "tfds", image_size=6))
    assert not (tmp_path / "was run").exists()


def test_a_feature_may_be_called_type(prepared, tmp_path, fresh_cache):
    """Older versions of TFDS store the name of a class under this key."""
    shutil.copytree(prepared, tmp_path / "tfds")
    path = tmp_path / "tfds" / "blocks" / "1.0.0" / "features.json"
    described = json.loads(path.read_text())
    described["featuresDict"]["features"]["type"] = {"pythonClassName": "other.Text"}
    path.write_text(json.dumps(described))
    with pytest.raises(UserError, match=r"features.json: names the class 'other.Text', which is not a feature of TFDS"):
        datasets.load(data_config("blocks", tmp_path / "tfds", image_size=6))


def test_a_crash_while_caching_leaves_no_partial_entry(prepared, fresh_cache, monkeypatch):
    save = np.save

    def crash(path, array):
        if (
            path.parent.parent == fresh_cache
        ):  # the entry of images, not the one of the chosen split, which is written before
            raise KeyboardInterrupt
        save(path, array)

    with monkeypatch.context() as patch:
        patch.setattr(cache.np, "save", crash)
        with pytest.raises(KeyboardInterrupt):
            datasets.load(data_config("blocks", prepared, image_size=6))
    assert list(fresh_cache.iterdir()) == []
    assert len(datasets.load(data_config("blocks", prepared, image_size=6)).train) == 12


def test_a_full_disk_is_logged_and_the_images_are_used(prepared, fresh_cache, monkeypatch, caplog):
    def full(path, array):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.np, "save", full)
    assert len(datasets.load(data_config("blocks", prepared, image_size=6)).train) == 12
    assert "No space left" in caplog.text


def test_images_of_several_sizes_are_refused(prepared, fresh_cache, monkeypatch):
    shapes = iter([(8, 8), (8, 8), (7, 8)])
    monkeypatch.setattr(loaders, "_resize", lambda image, size: np.zeros((*next(shapes), 3), np.uint8))
    with pytest.raises(UserError, match=r"images differ in shape .* at 2 of train\); set data.image_size"):
        datasets.load(data_config("blocks", prepared))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar10", "cifar-10-binary.tar.gz or cifar-10-python.tar.gz in .*, or set data.download=True"),
        ("mnst", "available without files: digits, cifar10, cifar100"),
    ],
)
def test_a_missing_data_set_is_refused_naming_the_places(tmp_path, name, message):
    with pytest.raises(UserError, match=message) as error:
        datasets.load(data_config(name, tmp_path))
    assert str(tmp_path / name) in str(error.value)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="nowhere: there is no such folder"):
        datasets.load(data_config("cifar10", tmp_path / "nowhere"))


def test_a_half_copied_data_set_is_refused(prepared, fresh_cache, tmp_path):
    import shutil

    shutil.copytree(prepared / "blocks", tmp_path / "blocks")
    for file in (tmp_path / "blocks" / "1.0.0").glob("*train*"):
        file.unlink()
    with pytest.raises(UserError, match="1.0.0"):
        datasets.load(data_config("blocks", tmp_path))


@pytest.mark.slow  # 16 s of a core to decode 60,000 files; test_tfds_sets.py reads small sets of the same form
@pytest.mark.skipif(not CIFAR10.is_dir(), reason="no prepared CIFAR-10; set TFDS_DATA_DIR to its folder")
def test_all_of_cifar10_has_its_known_statistics():
    data = datasets.load(data_config("cifar10", CIFAR10.parent))
    assert (len(data.train), len(data.test)) == (50_000, 10_000)
    assert data.classes == ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    np.testing.assert_array_equal(np.bincount(data.train.labels), 5000)
    np.testing.assert_array_equal(np.bincount(data.test.labels), 1000)
    # The widely published means and standard deviations of the channels of the training images.
    pixels = np.asarray(data.train.images)
    np.testing.assert_allclose(pixels.mean((0, 1, 2)) / 255, [0.4914, 0.4822, 0.4465], atol=1e-4)
    np.testing.assert_allclose(pixels.std((0, 1, 2)) / 255, [0.2470, 0.2435, 0.2616], atol=1e-4)
