"""``evaluate`` on other data than the network was trained on: the normalisation, the classes and the image size."""

import numpy as np
import pytest
from PIL import Image

from resnet_flax import api, config, model, model_evaluation
from resnet_flax.data import datasets
from resnet_flax.errors import UserError
from resnet_flax.evaluation_config import config_of_file, config_of_run
from resnet_flax.evaluation_set import load_evaluation_set
from resnet_flax.interchange import files, names
from resnet_flax.model_evaluation import evaluate as evaluate_set
from resnet_flax.training import loop
from tests.commands import command, lines
from tests.data.prepared_sets import prepare
from tests.marks import slow
from tests.runs.reference_views import middle
from tests.training.small import small_config

DIGITS = tuple("0123456789")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run on the digits, its export, and data sets with the same test images but other training images or classes."""
    folder = tmp_path_factory.mktemp("other")
    data = datasets.load(config.load("configs/digits.py").data)
    test = list(zip(data.test.images, data.test.labels, strict=True))
    dark = [(image // 4, label) for image, label in zip(data.train.images[:40], data.train.labels[:40], strict=True)]
    prepare(folder, "DarkDigits", {"train": dark, "test": test}, DIGITS, channels=1)
    reverse = [(image, 9 - label) for image, label in test]
    prepare(folder, "ReversedDigits", {"train": reverse[:40], "test": reverse}, DIGITS[::-1], channels=1)
    others = [str(i + 1) for i in range(10)]
    prepare(folder, "OtherDigits", {"train": dark, "test": test[:20]}, others, channels=1)
    prepare(folder, "TrainDigits", {"train": test}, DIGITS, channels=1)
    large = [(np.kron(image[..., 0], np.ones((2, 2), np.uint8)), label) for image, label in test[:20]]
    prepare(folder, "LargeDigits", {"train": large, "test": large}, DIGITS, channels=1)
    run = folder / "run"
    trained = {
        "train__steps": 60,
        "train__eval_every": 60,
        "schedule__milestones": (61, 62),  # after the last step; two of them, as in other tests, to share the program
        "optimizer__learning_rate": 0.02,
    }
    loop.run(small_config(**trained), run)
    net = model.from_run(str(run))
    tensors = names.to_tensors(net.network, net.preprocessing.image_shape, net.variables, "cifar")
    files.write(folder / "run.safetensors", tensors, config.to_json(net.config), net.preprocessing.to_json())
    return folder


def evaluate(place, name, given, *more):
    return command(
        "-m", "resnet_flax.evaluate", given, "--config=configs/digits.py:residual-8", "--config.model.width=0.25",
        f"--config.data.name={name}", f"--config.data.data_dir={place}", *more,
    )  # fmt: skip


@pytest.mark.parametrize("what", ["--workdir={}/run", slow("--weights={}/run.safetensors")])
def test_the_mean_image_is_that_of_the_training_run(place, what):
    """The data set has darker training images. Error and loss on the test images are those of the training run."""
    trained = lines(place / "run")[-1]
    wrong = round(355 * trained["test_error"])
    code, output = evaluate(place, "dark_digits", what.format(place), "--config.train.steps=900")
    assert code == 0, output
    last = output.splitlines()[-1]
    assert last.startswith(f"test error {wrong / 355:.2%} ({wrong} of 355), loss ")
    assert float(last.rpartition(" ")[2]) == pytest.approx(trained["test_loss"], abs=2e-4)
    if "workdir" in what:
        assert "run: step 60 of 60" in output


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "reversed_digits",
            r"reversed_digits: its classes are in another order (9, 8, 7, ...) than the network",
        ),
        ("other_digits", "its 10 classes are not the network's 10: only the data have 10; only the network has 0"),
    ],
)
def test_other_classes_are_refused(place, name, message):
    code, output = evaluate(place, name, f"--workdir={place}/run")
    assert code == 2
    assert message in output.splitlines()[-1]


def test_images_of_another_size_are_refused_unless_they_are_resized(place):
    given = "large_digits", f"--weights={place}/run.safetensors"
    code, output = evaluate(place, *given)
    assert code == 2
    assert "images are 16x16x1" in output.splitlines()[-1]
    assert "the network was trained on 8x8x1" in output.splitlines()[-1]
    code, output = evaluate(place, *given, "--config.data.image_size=8")
    assert code == 0, output
    assert "of 20), loss" in output.splitlines()[-1]


def test_evaluate_says_if_it_uses_held_out_training_images(place):
    code, output = evaluate(place, "train_digits", f"--workdir={place}/run")
    assert code == 0, output
    assert "tested on a fifth of its training images, which are not trained on: it has no split for testing" in output
    assert "of 70), loss" in output.splitlines()[-1]


def mean_loss(net, crops, labels):
    """The mean loss of crops [H, W, C] that are normalised already."""
    logits = np.asarray(net.features(np.stack(crops).astype(np.float32))["logits"], np.float64)
    return (np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]).mean()


def digits_config(place, **keys):
    given = {"model.width": 0.25, "data.name": "large_digits", "data.data_dir": str(place)}
    return config.load("configs/digits.py", "residual-8", given | keys)


def test_sizes_and_constants_that_the_user_sets_take_effect(place):
    """Images of 16 pixels go into a network that was trained on 8, without the mean image."""
    run = api.open_run(place / "run")
    c = digits_config(place, **{"data.image_size": 16, "data.normalization": "none"})
    test = datasets.load(c.data).test
    assert test.images.shape[1:] == (16, 16, 1)
    expected = mean_loss(run.model(), test.images / 255, test.labels)
    assert run.evaluate(config=c).loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"data.image_size": 16}, "data.resize=16: the mean image of training, which is subtracted, has 8x8 pixels"),
        (
            {"data.image_size": 8, "data.normalization": "channel"},
            "data.normalization='channel' is a statistic of the training images, which the network was trained without",
        ),
        ({"data.image_size": 8, "data.normalization": "caffe"}, "'caffe' needs images with 3 channels"),
    ],
)
def test_preprocessing_that_is_not_known_is_refused(place, keys, message):
    with pytest.raises(UserError, match=message):
        api.open_run(place / "run").evaluate(config=digits_config(place, **keys))


def photographs_config(place, **keys):
    given = {"model.stage_units": (1,), "data.folder": str(place / "photos")}
    return config.load("configs/folder.py", "residual-18", given | keys)


def test_photographs_are_prepared_as_the_user_says(begun_before):
    """PIL prepares them for the expected loss. The run was trained on 16 out of 19 pixels, bilinear."""
    workdir, exported = begun_before / "photographs", begun_before / "exported.safetensors"
    net = model.from_run(workdir)
    tensors = names.to_tensors(net.network, net.preprocessing.image_shape, net.variables, "imagenet")
    files.write(exported, tensors, config.to_json(net.config), net.preprocessing.to_json())
    keys = {"image_size": 24, "resize": 30, "interpolation": "bicubic", "normalization": "none"}
    c = photographs_config(begun_before, **{f"data.{key}": value for key, value in keys.items()})

    crops, labels = [], []
    for path in sorted((begun_before / "photos").glob("*/*")):
        image = Image.open(path).convert("RGB")
        size = [30 * side // min(image.size) for side in image.size]
        crops.append(middle(middle(np.asarray(image.resize(size, Image.Resampling.BICUBIC)) / 255, 30, 30), 24, 24))
        labels.append(net.preprocessing.classes.index(path.parent.name))
    expected = mean_loss(net, crops, labels)
    found = evaluate_set(net, load_evaluation_set(config_of_run(workdir, c), "all"))
    assert found.images == len(labels)
    assert found.loss == pytest.approx(expected, rel=1e-4)
    file = files.read(exported)
    chosen = load_evaluation_set(config_of_file(file, c), "all")
    assert evaluate_set(model.from_loaded(file, chosen.config), chosen).loss == pytest.approx(expected, rel=1e-4)

    image_size = config_of_run(workdir, photographs_config(begun_before, **{"data.image_size": 28})).data
    assert (image_size.resize, image_size.interpolation) == (32, "bilinear")  # 8/7, as in the config file
    too_small = config_of_run(workdir, photographs_config(begun_before, **{"data.resize": 15, "data.image_size": 16}))
    with pytest.raises(UserError, match="data.resize=15 must be at least data.image_size=16"):
        net.for_images(too_small.data)


@pytest.mark.parametrize("keys", ['"validation": 200', '"validation": 0, "subset": 200'])
def test_a_smaller_folder_than_that_of_training_is_evaluated(begun_before, keys):
    workdir = begun_before / "photographs"
    text = (workdir / "config.json").read_text()
    (workdir / "config.json").write_text(text.replace('"subset": 0,', "").replace('"validation": 0', keys))
    c = photographs_config(begun_before)
    count = len(list((begun_before / "photos").glob("*/*")))
    test, train, whole = (
        sum(map(len, load_evaluation_set(config_of_run(workdir, c), split).splits.values()))
        for split in ("test", "train", "all")
    )
    assert 0 < test < train < whole == test + train == count
    c = photographs_config(begun_before, **{"data.validation": 1})
    assert len(load_evaluation_set(config_of_run(workdir, c), "validation").splits["validation"]) == 1


class Enough(Exception):
    """Ends an evaluation."""


def reestimation(monkeypatch, net, chosen):
    """Returns the batches from which an evaluation would re-estimate BN's statistics, and the line about them."""
    seen, said = [], []

    def stop(network, params, transform, batches):
        seen.extend(batches)
        raise Enough

    monkeypatch.setattr(model_evaluation, "reestimate", stop)
    with pytest.raises(Enough):
        evaluate_set(net, chosen, reestimate_bn=True, say=said.append)
    return seen, *said


@pytest.mark.parametrize("split", ["test", "all"])
def test_statistics_are_reestimated_on_the_images_that_were_trained_on(begun_before, monkeypatch, split):
    """They are not those of all images that are evaluated: 142 of 1,442 were held out."""
    workdir = begun_before / "finished"
    c = config_of_run(workdir)
    seen, line = reestimation(monkeypatch, model.from_run(workdir), load_evaluation_set(c, split))
    assert line == "BN statistics: averages over 1300 training images, 16 at a time"
    np.testing.assert_array_equal(np.concatenate(seen), datasets.load(c.data).train.images)


def test_statistics_are_reestimated_over_batches_of_the_training(place, monkeypatch):
    """The config file that is named for the evaluation has batches of 32 images, and the run had 16."""
    given = config.load("configs/digits.py", "residual-8", {"model.width": 0.25})
    assert given.train.batch_size == 32
    net, file = model.from_run(place / "run"), files.read(place / "run.safetensors")
    of_file = config_of_file(file, given)
    for each, c in ((net, config_of_run(place / "run", given)), (model.from_loaded(file, of_file), of_file)):
        seen, line = reestimation(monkeypatch, each, load_evaluation_set(c))
        assert line.endswith("training images, 16 at a time")
        assert [len(images) for images in seen] == [16] * 90 + [2]
    given = config.load("configs/digits.py", "residual-8", {"model.width": 0.25, "train.bn_group": 8})
    assert config_of_run(place / "run", given).train.bn_group == 8  # the user's own choice
