"""Tests of a small ImageNet in every form: its known labels, and missing or incomplete files."""

import shutil

import numpy as np
import pytest

from resnet_flax import config
from resnet_flax.data import datasets, decoding, photograph_sets
from resnet_flax.errors import UserError
from tests.data import imagenet_files as files

NAMES = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz")


def load(folder, **keys):
    data = config.base().data.to_dict() | {"name": "imagenet2012", "data_dir": str(folder)} | keys
    return datasets.load(data, pipeline="stream")


def seen_classes(photographs):
    """Returns the class of each photograph by its colour, and by its label."""
    seen = []
    for i, label in enumerate(photographs.labels):
        red = np.asarray(decoding.read_photo(photographs[i]))[..., 0].mean()
        number = min(files.LEAVES, key=lambda n: abs(files.colour_of(n)[0] - red))
        seen.append((number, files.CLASSES[label]))
    return seen


def check(data):
    assert data.classes == files.CLASSES
    assert (len(data.train), len(data.test), len(data.validation)) == (12, 7, 0)
    for photographs in (data.train, data.test):
        assert photographs.labels.dtype == np.int32
        assert all(seen == labelled for seen, labelled in seen_classes(photographs))
    assert np.bincount(data.train.labels).tolist() == [3] * 4
    expected = sorted(number for number, _, _ in files.validation_images())
    assert sorted(files.CLASSES[label] for label in data.test.labels) == expected


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """By form, a folder with ImageNet in this form."""
    place = tmp_path_factory.mktemp("imagenet")
    return {
        "TFDS data set": files.prepare_tfds(place / "tfds"),
        "tar files": files.write_tars(place / "tars"),
        "class folders": files.write_folders(place / "folders"),
    }


@pytest.mark.parametrize("form", ["TFDS data set", "tar files", "class folders"])
def test_labels_are_right_in_every_form(forms, form):
    for _ in range(2):  # read, then from the cache
        data = load(forms[form])
        assert data.where.startswith(f"{form} in {forms[form]}")
        check(data)


def test_validation_labels_of_the_tars_follow_the_file_names(forms):
    test = load(forms["tar files"]).test
    found = {test.source.name(i).rpartition(": ")[2]: files.CLASSES[label] for i, label in enumerate(test.labels)}
    assert found == {name: number for number, name, _ in files.validation_images()}
    assert next(iter(found)) == "ILSVRC2012_val_00000005.JPEG"  # the first in the tar


def test_tars_are_also_found_where_tfds_expects_them(forms, tmp_path):
    shutil.copytree(forms["tar files"], tmp_path / "downloads" / "manual")
    data = load(tmp_path)
    assert data.where == f"tar files in {tmp_path / 'downloads' / 'manual'}"
    check(data)


def test_a_prepared_data_set_comes_first_and_class_folders_last(forms, tmp_path):
    for form in ("class folders", "tar files", "TFDS data set"):
        shutil.copytree(forms[form], tmp_path, dirs_exist_ok=True)
        assert load(tmp_path).where.startswith(form)


def test_validation_images_are_set_aside(forms):
    whole, data = load(forms["tar files"]), load(forms["tar files"], validation=2, subset=5)
    assert (len(data.train), len(data.test), len(data.validation)) == (5, 7, 2)
    names = [{str(p[i]) for i in range(len(p))} for p in (whole.train, data.train, data.validation)]
    assert names[1] | names[2] < names[0]
    assert not names[1] & names[2]
    again = load(forms["class folders"], validation=2, subset=5)
    assert np.bincount(again.train.labels, minlength=4).sum() == 5
    for photographs in (data.train, data.validation):
        assert all(seen == labelled for seen, labelled in seen_classes(photographs))


def refused(folder, *parts):
    with pytest.raises(UserError) as error:
        load(folder)
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


def test_an_empty_folder_is_refused_naming_every_place(tmp_path):
    places = [tmp_path / name for name in ("imagenet2012", *NAMES, "train", "val")]
    refused(tmp_path, "was not found; looked for", "data.data_dir", *map(str, places))


@pytest.mark.parametrize("missing", NAMES)
def test_a_missing_tar_is_named(forms, tmp_path, missing):
    shutil.copytree(forms["tar files"], tmp_path, dirs_exist_ok=True)
    (tmp_path / missing).unlink()
    message = refused(tmp_path, str(tmp_path / missing), "missing")
    assert not any(str(tmp_path / name) in message for name in NAMES if name != missing)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kept", [0, 0.3, 0.9])
def test_a_half_copied_tar_is_refused(forms, tmp_path, name, kept):
    shutil.copytree(forms["tar files"], tmp_path, dirs_exist_ok=True)
    content = (tmp_path / name).read_bytes()
    end = len(content.rstrip(b"\0")) if name.endswith(".tar") else len(content)
    (tmp_path / name).write_bytes(content[: int(kept * end)])
    refused(tmp_path, str(tmp_path / name), "complete" if kept or name.endswith("gz") else "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: files.write_devkit(f, files.TRUTH[:-1]), "holds 7 images, but ILSVRC2012_devkit_t12.tar.gz has"),
        (lambda f: files.write_devkit(f, (*files.TRUTH[:-1], 99)), "devkit_t12.tar.gz: cannot be read"),
        (lambda f: files.write_devkit(f, (*files.TRUTH[:-1], 5)), "it lacks n00001740.tar"),
        (
            lambda f: (f / NAMES[0]).write_bytes((f / NAMES[1]).read_bytes()),
            "img_train.tar: ILSVRC2012_val_00000005.JPEG is not inside a class's tar",
        ),
    ],
)
def test_tars_that_do_not_belong_together_are_refused(forms, tmp_path, change, message):
    shutil.copytree(forms["tar files"], tmp_path, dirs_exist_ok=True)
    change(tmp_path)
    refused(tmp_path, message)


def test_class_folders_in_the_working_directory(forms, monkeypatch):
    monkeypatch.chdir(forms["class folders"])
    data = datasets.load(config.base().data.to_dict() | {"folder": "."}, pipeline="stream")
    check(data)
    assert data.fingerprint == load(forms["class folders"]).fingerprint


def test_incomplete_class_folders_are_refused(forms, tmp_path):
    shutil.copytree(forms["class folders"], tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "val" / files.LEAVES[0])
    refused(tmp_path, f"train has the class {files.LEAVES[0]}, but val does not")
    shutil.rmtree(tmp_path / "val")
    refused(tmp_path, str(tmp_path / "val"))


def test_an_incomplete_prepared_data_set_is_refused(forms, tmp_path):
    shutil.copytree(forms["TFDS data set"], tmp_path, dirs_exist_ok=True)
    place = tmp_path / "imagenet2012" / "5.1.0"
    (shard,) = place.glob("*train*")
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    refused(tmp_path, str(place))
    shard.unlink()
    refused(tmp_path, str(place))


def test_tfds_test_images_without_labels_are_not_used(tmp_path):
    check(load(files.prepare_tfds(tmp_path, test=True)))


def test_a_prepared_data_set_that_needs_tensorflow(forms, tmp_path):
    """The tar files are read instead, if they are there; otherwise it is refused."""
    shutil.copytree(forms["TFDS data set"], tmp_path, dirs_exist_ok=True)
    (info,) = tmp_path.rglob("dataset_info.json")
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    refused(tmp_path, "cannot be read without TensorFlow")
    files.write_tars(tmp_path / "downloads" / "manual")
    data = load(tmp_path)
    assert data.where.startswith("tar files in")
    check(data)
    info.write_text("{")
    refused(tmp_path, "dataset_info.json: this is not JSON")


def test_a_fingerprint_does_not_depend_on_the_folder(forms, tmp_path):
    found = {form: load(folder).fingerprint for form, folder in forms.items()}
    assert len(set(found.values())) == 3  # each form has another order
    for form, folder in forms.items():
        shutil.copytree(folder, tmp_path / form)
        assert load(tmp_path / form).fingerprint == found[form]
    first = next((tmp_path / "class folders" / "train" / files.LEAVES[0]).iterdir())
    first.rename(first.with_name("other.JPEG"))
    assert load(tmp_path / "class folders").fingerprint != found["class folders"]
    assert load(forms["tar files"], subset=5).fingerprint != found["tar files"]


def test_unreadable_folders_are_refused_by_name(forms, tmp_path, monkeypatch):
    shutil.copytree(forms["class folders"], tmp_path, dirs_exist_ok=True)

    def unreadable(path):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "iterdir", unreadable)  # root may read everything
        refused(tmp_path, f"{tmp_path / 'train'}: cannot be read: Permission denied")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    refused(tmp_path, f"{tmp_path}: this folder cannot be read: Permission denied")


def test_look_lists_what_is_there(forms, tmp_path):
    def found(folder):
        return {(w.form, w.path.name): w.found for w in photograph_sets.look("imagenet2012", folder)}

    nothing = found(tmp_path)
    assert list(nothing) == [
        ("prepared by TFDS", "imagenet2012"), *(("original tar files", name) for name in NAMES),
        ("class folders", "train"), ("class folders", "val"),
    ]  # fmt: skip
    assert set(nothing.values()) == {""}
    size = (forms["tar files"] / NAMES[1]).stat().st_size
    assert found(forms["tar files"])["original tar files", NAMES[1]] == f"{size:,} bytes"
    assert found(forms["class folders"])["class folders", "val"] == "4 class folders"
    assert found(forms["TFDS data set"])["prepared by TFDS", "5.1.0"] == "version 5.1.0"
    assert [w.form for w in photograph_sets.look("other", tmp_path)] == ["prepared by TFDS"]
