"""Tests of the order of class folders whose names are numbers, and of the notes about it."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from resnet_flax import config, model, model_evaluation
from resnet_flax.data import datasets, folders, photograph_sets
from resnet_flax.errors import UserError
from resnet_flax.interchange import names
from resnet_flax.interchange.class_names import imagenet_classes
from resnet_flax.networks import build
from resnet_flax.training import loop
from resnet_flax.training.setup import preprocessing
from tests.commands import ROOT, command
from tests.interchange import random_weights
from tests.runs.test_photographs import make_folder
from tests.training.small import small_config


def data_of(folder, **keys):
    c = config.base()
    c.data.update(name="folder", folder=str(folder), image_size=8, pad=0, **keys)
    return c.data


@pytest.mark.parametrize("pipeline", ["resident", "stream"])
def test_the_order_of_numbers_is_a_setting_and_is_noted(tmp_path, pipeline):
    folder = make_folder(tmp_path / "numbers", ("1", "2", "10"), 3)
    for value in (1, 2, 10):
        for j in range(3):
            Image.new("RGB", (9, 8), (value,) * 3).save(folder / str(value) / f"{j}.jpg", quality=100)
    by_name = datasets.load(data_of(folder, pipeline=pipeline))
    assert by_name.classes == ("1", "10", "2")  # the order of torchvision's ImageFolder and of earlier runs
    assert by_name.note == (
        "class names are numbers, sorted as 1, 10, 2, ... (names); data.class_order=numbers sorts them the other way"
    )
    by_number = datasets.load(data_of(folder, pipeline=pipeline, class_order="numbers"))
    assert by_number.classes == ("1", "2", "10")
    assert "sorted as 1, 2, 10, ... (numbers)" in by_number.note
    if pipeline == "resident":
        shown = {by_number.classes[label]: image.max() for image, label in
                 zip(by_number.train.images, by_number.train.labels, strict=True)}  # fmt: skip
        assert shown == {"1": 1, "2": 2, "10": 10}


def test_names_that_are_not_numbers_have_one_order(tmp_path):
    assert folders.scan(make_folder(tmp_path / "a", ("0", "1", "2"), 2)).note == ""
    assert folders.scan(make_folder(tmp_path / "b", ("1", "10", "cat"), 2)).classes == ("1", "10", "cat")
    with pytest.raises(UserError, match="data.class_order='numbers': .* has the class cat, which is not a number"):
        folders.scan(tmp_path / "b", "numbers")
    with pytest.raises(UserError, match="data.class_order='numbers' is only for class folders"):
        datasets.load(config.load("configs/digits.py", None, {"data.class_order": "numbers"}).data)
    with pytest.raises(UserError, match="data.class_order='size' is not known; choose one of names, numbers"):
        config.validate(config.load("configs/digits.py", None, {"data.class_order": "size"}))


def test_a_run_prints_the_order(tmp_path, capfd):
    folder = make_folder(tmp_path / "numbers", ("1", "2", "10"), 3)
    c = small_config(
        model__stage_units=(1,), train__steps=1, train__batch_size=8, data__folder=str(folder), data__image_size=8,
        data__class_order="numbers",
    )  # fmt: skip
    loop.run(c, tmp_path / "run")
    assert "3 classes (1, 2, 10); 6 + 3 images; class names are numbers, sorted" in "".join(capfd.readouterr())
    assert json.loads((tmp_path / "run" / "preprocessing.json").read_text())["classes"] == ["1", "2", "10"]


def test_an_earlier_run_keeps_the_order_that_it_stored(begun_before):
    workdir = begun_before / "photographs"
    assert model.from_run(workdir).preprocessing.classes == ("1", "10", "2")
    # A config with another order changes nothing: labels follow the names of the classes.
    arguments = (
        "-m", "resnet_flax.evaluate", f"--workdir={workdir}", "--config=configs/folder.py:residual-18",
        "--config.model.stage_units=(1,)", f"--config.data.folder={begun_before / 'photos'}",
    )  # fmt: skip
    code, output = command(*arguments)
    assert code == 0, output
    assert "class names are numbers, sorted as 1, 10, 2" in output
    (workdir / "config.json").write_text(
        (workdir / "config.json").read_text().replace('"data_dir"', '"class_order": "numbers", "data_dir"')
    )
    code, again = command(*arguments)
    assert code == 0, again
    assert again.splitlines()[-1] == output.splitlines()[-1]
    assert "classes in the order of the network's" in again


def test_folders_named_0_to_999_are_imagenets_labels(tmp_path):
    """The loss of published weights on folders 0 to 999 takes the names as labels, not their order as strings."""
    given = {"model.width": 0.125, "model.stage_units": (1,), "data.image_size": 32, "data.resize": 32}
    c = config.load(str(ROOT / "configs/folder.py"), "residual-18", given)
    network = build(c.model, 1000)
    tensors = {e.name: random_weights.tensor(e.name, e.shape) for e in names.entries(network, (32, 32, 3), "imagenet")}
    save_file(tensors, tmp_path / "w.safetensors")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for i in range(1000):
            (tmp_path / "photos" / split / str(i)).mkdir(parents=True)
            Image.new("L", (32, 32), 100).save(tmp_path / "photos" / split / str(i) / "0.png")
    for number in (10, 2, 999):  # enough images of some classes that their order shows in the loss
        for j in range(1, 200):
            pixels = rng.integers(0, 256, (2, 2, 3), np.uint8).repeat(16, 0).repeat(16, 1)
            Image.fromarray(pixels).save(tmp_path / "photos" / "val" / str(number) / f"{j}.png")
    assert photograph_sets.find("imagenet2012", tmp_path / "photos").classes == tuple(map(str, range(1000)))
    files = sorted((tmp_path / "photos" / "val").glob("*/*.png"))
    net = model.from_weights(str(tmp_path / "w.safetensors"), c, set(given))
    logits = np.asarray(net.features(net.prepare(files))["logits"], np.float64)
    scores = (
        logits
        - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
        - logits.max(1, keepdims=True)
    )
    labels = np.array([int(file.parent.name) for file in files])
    loss, wrong = -scores[np.arange(len(files)), labels].mean(), (scores.argmax(1) != labels).sum()
    as_strings = np.array(sorted(map(str, range(1000)))).searchsorted(labels.astype(str))
    assert abs(-scores[np.arange(len(files)), as_strings].mean() - loss) > 0.01
    code, output = command(
        "-m", "resnet_flax.evaluate", "--config=configs/folder.py:residual-18", f"--weights={tmp_path}/w.safetensors",
        *(f"--config.{key}={value}" for key, value in given.items()), f"--config.data.folder={tmp_path / 'photos'}",
    )  # fmt: skip
    assert code == 0, output
    last = output.splitlines()[-1]
    assert f"({wrong} of {len(files)})" in last
    assert float(last.rpartition(" ")[2]) == pytest.approx(loss, rel=1e-4, abs=2e-3)


WORDNET, LABELS = [f"n{i:08}" for i in range(1000)], [str(i) for i in range(1000)]
FROM_ONE, WORDS = [str(i + 1) for i in range(1000)], [f"word {i}" for i in range(1000)]


@pytest.mark.parametrize(
    ("folders", "certain"),
    [(WORDNET, True), (LABELS, True), ([f"{i:03}" for i in range(1000)], True), (FROM_ONE, False), (WORDS, False)],
)
def test_thousand_folders_are_imagenets_only_by_their_names(tmp_path, folders, certain):
    """Otherwise classes keep the folders' names, and a note says that the order is a guess."""
    for name in folders:
        (tmp_path / "val" / name).mkdir(parents=True)
        (tmp_path / "val" / name / "0.jpg").touch()
    (tmp_path / "val" / folders[0] / "list.txt").touch()
    c = config.load("configs/imagenet.py", None, {"data.data_dir": str(tmp_path)})
    data = datasets.load_for_evaluation(c.data)
    assert data.classes == tuple(folders if certain else sorted(folders))
    assert data.note.endswith("1 files skipped, because their names are not an image's (1 .txt)")
    assert ("data.class_order=numbers sorts them the other way" in data.note) == (folders is FROM_ONE)
    normalization = data.access.normalization("imagenet", data.test)
    assert preprocessing(c, data, normalization).classes == (imagenet_classes() if certain else data.classes)

    net = SimpleNamespace(preprocessing=SimpleNamespace(classes=imagenet_classes()))
    aligned = model_evaluation._align_classes(net, data)
    np.testing.assert_array_equal(aligned.test.labels, np.arange(1000))
    assert ("its classes are taken for ImageNet's in this order" in aligned.note) != certain


def test_other_thousand_classes_are_not_a_networks(tmp_path):
    own = SimpleNamespace(preprocessing=SimpleNamespace(classes=tuple(WORDS)))
    for others in (WORDNET, LABELS, FROM_ONE):
        with pytest.raises(UserError, match="its 1000 classes are not the network's 1000: only the data have "):
            model_evaluation._check_classes(own, tuple(others), "there")
    trained = SimpleNamespace(preprocessing=SimpleNamespace(classes=tuple(WORDNET)))
    model_evaluation._check_classes(trained, tuple(LABELS), "there")
