"""``evaluate`` on other data than the network was trained on: the normalisation, the classes and the image size."""

import numpy as np
import pytest

from resnet_flax import config, model
from resnet_flax.data import datasets
from resnet_flax.interchange import files, names
from resnet_flax.training import loop
from tests.commands import command, lines
from tests.data.prepared_sets import prepare
from tests.marks import slow
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
