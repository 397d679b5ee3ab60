"""Tests of the checks of labels, and of the test split of data sets whose test images have no labels."""

import numpy as np
import pytest

from resnet_flax import config
from resnet_flax.data import datasets, loaders
from resnet_flax.errors import UserError
from resnet_flax.reporting import report
from resnet_flax.runs import checksums, rules
from resnet_flax.runs.file_names import STARTS
from resnet_flax.training import loop
from tests.data.prepared_sets import grey, prepare
from tests.training.small import small_config

PIPELINES = ("resident", "stream")


def data_of(folder, name, pipeline="resident", **keys):
    c = config.base()
    c.data.update(name=name, data_dir=str(folder), download=False, image_size=8, pipeline=pipeline, pad=0)
    c.data.update(keys)
    return c.data


def load(folder, name, pipeline="resident", **keys):
    return datasets.load(data_of(folder, name, pipeline, **keys))


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder, classes = tmp_path_factory.mktemp("tfds"), ["a", "b", "c"]
    train = grey(range(30), [0, 1, 2] * 10)
    some, none = grey([100, 101, 102, 103], [2, 1, 0, 0]), grey(range(200, 206), [-1] * 6)
    prepare(folder, "Unlabelled", {"train": train, "test": none, "validation": some}, classes)
    prepare(folder, "NoneLabelled", {"train": train, "test": none}, classes)
    prepare(folder, "OnlyTrain", {"train": train}, classes)
    prepare(folder, "Integers", {"train": train, "test": some})
    prepare(folder, "FromOne", {"train": grey(range(6), [1, 2, 3] * 2), "test": some})
    prepare(folder, "MissingLabel", {"train": [*train[:7], (train[7][0], -1)], "test": some}, classes)
    prepare(folder, "HalfLabelled", {"train": train, "test": [*some, none[0]]}, classes)
    return folder


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_test_split_without_labels_gives_way_to_a_labelled_one(sets, pipeline):
    data = load(sets, "unlabelled", pipeline)
    assert (len(data.train), len(data.test)) == (30, 4)
    assert sorted(data.test.labels) == [0, 0, 1, 2]
    assert data.note == "tested on its split validation: test has no labels"
    assert load(sets, "unlabelled", pipeline).note == data.note  # from the cache


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize(
    ("name", "why"), [("only_train", "it has no split for testing"), ("none_labelled", "test has no labels")]
)
def test_a_fifth_of_the_training_images_stands_in_for_a_test_split(sets, name, why, pipeline):
    data, again = load(sets, name, pipeline), load(sets, name, pipeline)
    assert (len(data.train), len(data.test)) == (24, 6)
    assert np.bincount(data.test.labels).tolist() == [2, 2, 2]
    assert data.note == f"tested on a fifth of its training images, which are not trained on: {why}"
    assert again.note == data.note
    np.testing.assert_array_equal(data.test.labels, again.test.labels)
    if pipeline == "resident":
        np.testing.assert_array_equal(data.test.images, again.test.images)
        values = np.concatenate([data.train.images[:, 0, 0, 0], data.test.images[:, 0, 0, 0]])
        assert sorted(values) == list(range(30))
        validated = load(sets, name, validation=5)
        np.testing.assert_array_equal(validated.test.images, data.test.images)


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("from_one", r"image \d of train has the label 3; there are 3 classes, so labels must be from 0 to 2$"),
        ("missing_label", r"image \d of train has the label -1; there are 3 classes, so labels must be from 0 to 2$"),
        ("half_labelled", r"image \d of test has the label -1; there are 3 classes, so labels must be from 0 to 2$"),
    ],
)
def test_labels_that_name_no_class_are_refused(sets, name, message, pipeline):
    with pytest.raises(UserError, match=rf"{name}/1\.0\.0: {message}"):
        load(sets, name, pipeline)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_plain_integers_become_classes(sets, pipeline):
    data = load(sets, "integers", pipeline)
    assert data.classes == ("0", "1", "2")
    assert (len(data.train), len(data.test), data.note) == (30, 4, "")


def test_labels_of_archives_and_of_the_cache_are_checked(tmp_path, monkeypatch):
    """Labels are also checked if they come from the cache of an earlier version."""
    digits = loaders._digits

    def damaged(size):
        train, test, classes = digits(size)
        labels = np.array(test.labels)
        labels[17] = 10
        return train, type(test)(test.images, labels), classes

    monkeypatch.setattr(loaders, "_digits", damaged)
    with pytest.raises(UserError, match=r"^digits: image 17 of test has the label 10; there are 10 classes"):
        datasets.load(config.load("configs/digits.py").data)


def run_config(sets, name, **overrides):
    return small_config(
        model__stage_units=(1,), train__steps=2, train__batch_size=8, data__name=name, data__data_dir=str(sets),
        data__image_size=8, **overrides,
    )  # fmt: skip


def test_a_run_prints_the_test_split_and_one_of_old_rules_is_not_resumed(sets, tmp_path, capfd):
    c = run_config(sets, "unlabelled")
    found = loop.run(c, tmp_path)
    assert found["test_error"] * 4 == pytest.approx(round(found["test_error"] * 4))
    assert "; tested on its split validation: test has no labels" in "".join(capfd.readouterr())
    _, page = report.write(tmp_path, tmp_path.with_name("report"))
    assert "tested on its split validation: test has no labels" in page.read_text()
    starts = tmp_path / STARTS
    starts.write_text(starts.read_text().replace(f'"rules": {rules.RULES}', '"rules": 1'))
    (starts.parent / checksums.FILE).unlink(missing_ok=True)  # which earlier versions did not write
    assert loop.run(c, tmp_path)["step"] == 2  # finished
    c.train.steps = 4
    with pytest.raises(UserError, match="begun under an old rule: its images, if not square"):
        loop.run(c, tmp_path)
    c.data.image_size = 0
    c.train.steps = 2
    loop.run(c, tmp_path / "second")
    starts = tmp_path / "second" / STARTS
    starts.write_text(starts.read_text().replace(f'"rules": {rules.RULES}', '"rules": 1'))
    (starts.parent / checksums.FILE).unlink(missing_ok=True)  # which earlier versions did not write
    c.train.steps = 4
    with pytest.raises(
        UserError, match=r"old rule: its test images have no labels, and now it would be tested on its s"
    ):
        loop.run(c, tmp_path / "second")
    assert rules.old_rules(config.resolve(c), 1) == []
